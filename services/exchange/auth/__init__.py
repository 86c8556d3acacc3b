"""The auth service: users, sessions, tokens, API keys, and who is locked out."""
