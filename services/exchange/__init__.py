"""The PinCEX server: services of an exchange around one deterministic engine."""
