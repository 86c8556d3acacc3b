"""The trading engine's services: they translate between the contracts and the core, and know both."""
