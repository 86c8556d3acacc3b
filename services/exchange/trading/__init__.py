"""The trading engine: the core, its journal, and the services in front of it."""

from exchange.trading.core_loader import install as _choose_core

# Before any import of the core: compiled modules that do not match their sources must not load.
_choose_core()
