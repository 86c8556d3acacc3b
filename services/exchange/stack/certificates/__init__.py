"""Certificates: a development authority of our own, and whatever an operator brings instead.

`issue` makes them, `description` reads and judges them, `settings` says which ones are used, `store` keeps ours on the disk,
`delivery` hands those in use to Envoy, `commands` is `pincex certs`.
"""
