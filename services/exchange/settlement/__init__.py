"""The settlement service: a double-entry ledger and SQL projections of all that the engine did, each event exactly once."""
