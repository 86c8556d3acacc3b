"""Where the market maker meets the contracts: what it asks of the exchange, and what operators ask of it."""
