"""Words and numbers of the trade: symbols, ids, exact decimals. Imports nothing of ours."""
