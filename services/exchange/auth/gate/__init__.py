"""The gate: Envoy asks it, before a signed request or one with a client certificate goes on, and it answers with a token.

`server` speaks HTTP, `gate` decides, `credentials` knows keys and certificates and forgets what was revoked, `uses` tells
what was used, `running` puts them together.
"""
