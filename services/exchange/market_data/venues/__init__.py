"""Feeds of other venues: their books and trades, and what their prices come to. docs/VENUES.md."""
