"""How a service finds out, by itself, who makes a call: tokens, what was revoked, and other services."""
