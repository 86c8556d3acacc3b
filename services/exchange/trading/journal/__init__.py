"""The journal: every command and its events, durable, in order, and tamper-evident."""
