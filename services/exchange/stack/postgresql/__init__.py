"""PostgreSQL for the stack: one server, or a primary and a synchronous standby that fails over (docs/DATABASE.md)."""
