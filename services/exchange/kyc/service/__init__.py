"""Where Protobuf meets cases and tiers."""
