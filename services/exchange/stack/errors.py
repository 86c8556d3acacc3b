"""Failures that a person who typed `pincex up` must read."""

from __future__ import annotations


class StackError(Exception):
    """Something the operator can act on; the text is printed as it is."""
