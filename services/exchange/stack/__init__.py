"""Runs the whole exchange on one machine: PostgreSQL, Valkey, the services, Envoy.

`services.py` lists what runs; `supervisor.py` starts, watches and stops it; `commands.py` is `pincex up` and its
companions; `edge/` renders Envoy's configuration.
"""
