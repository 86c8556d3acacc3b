"""Money in and out: deposits, withdrawals, transfers, and the networks that carry them."""
