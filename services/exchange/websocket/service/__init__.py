"""Where the contracts meet the JSON of the protocol."""
