"""Where Protobuf meets the books."""
