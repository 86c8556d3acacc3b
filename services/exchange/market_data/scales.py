"""A market's decimals as whole ticks and lots, and back to the very text of the wire."""

from __future__ import annotations

from typing import Final

from exchange.domain.decimals import format_units, parse_units

# Texts that are remembered for each scale: prices and sizes repeat.
_CACHE_SIZE: Final = 8_192


class Scale:
    """Whole multiples of a step such as "0.25"; each has one text, with as many digits behind the point as the step."""

    def __init__(self, step: str) -> None:
        self._decimals = len(step.partition(".")[2])
        self._units = parse_units(step, self._decimals)
        self._texts: dict[int, str] = {}
        self._counts: dict[str, int] = {}

    def count(self, text: str) -> int:
        """How many steps; 0 for an empty text. Raises ValueError for what is none."""
        found = self._counts.get(text)
        if found is None:
            found, rest = divmod(parse_units(text, self._decimals), self._units) if text else (0, 0)
            if rest:
                raise ValueError(f"{text} is no multiple of the step")
            if len(self._counts) > _CACHE_SIZE:
                self._counts.clear()
            self._counts[text] = found
        return found

    def text(self, count: int) -> str:
        """The text of so many steps."""
        found = self._texts.get(count)
        if found is None:
            if len(self._texts) > _CACHE_SIZE:
                self._texts.clear()
            found = self._texts[count] = format_units(count * self._units, self._decimals)
        return found
