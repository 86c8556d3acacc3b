"""The edge: Envoy's whole configuration, rendered from the contracts.

`contract` reads the descriptor image, `plan` says what is wanted in our own words, the other modules turn that into
Envoy's JSON. Nothing here starts a process or reads the environment.
"""
