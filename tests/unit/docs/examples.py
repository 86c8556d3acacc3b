"""Examples of a document that a test runs, and the output that the document promises.

A marker stands in the line before a fenced block:

    <!-- run: NAME -->            commands for bash
    <!-- run: NAME, for 3 s -->   the same, cut off after so long: a stream
    <!-- output: NAME -->         what they print

`...` in an output stands for anything. In a `text` block each line is looked for, in order; another block is one
piece. Blanks and line breaks do not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BLOCK = re.compile(
    r"^<!-- (?P<kind>run|output): (?P<name>[a-z-]+)(?:, for (?P<seconds>\d+) s)? -->\n"
    r"```(?P<language>[a-z]+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_MARKER = re.compile(r"^<!-- (?:run|output):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Example:
    """A block of commands; `seconds` is 0 where it ends by itself, `output` empty where none is promised."""

    name: str
    script: str
    seconds: int
    output: tuple[str, ...]


class BadDocument(ValueError):
    """A marker without its block, a name used twice, or an output of nothing."""


def examples(text: str) -> list[Example]:
    """The examples of a document, in order. Raises BadDocument."""
    blocks = list(_BLOCK.finditer(text))
    if len(blocks) != len(_MARKER.findall(text)):
        raise BadDocument("a marker has no fenced block right below it")
    outputs: dict[str, tuple[str, ...]] = {}
    found: dict[str, Example] = {}
    for block in blocks:
        name = block["name"]
        known = outputs if block["kind"] == "output" else found
        if name in known:
            raise BadDocument(f"{block['kind']} {name} stands twice")
        if block["kind"] == "output":
            outputs[name] = pieces(block["text"], by_line=block["language"] == "text")
        else:
            found[name] = Example(name, block["text"], int(block["seconds"] or 0), ())
    if outputs.keys() - found.keys():
        raise BadDocument(f"outputs of no example: {sorted(outputs.keys() - found.keys())}")
    return [Example(e.name, e.script, e.seconds, outputs.get(e.name, ())) for e in found.values()]


def pieces(text: str, *, by_line: bool) -> tuple[str, ...]:
    """What must be found, one after another, without blanks."""
    parts = text.splitlines() if by_line else ["".join(text.splitlines())]
    return tuple(piece for part in parts for piece in (_squeezed(each) for each in part.split("...")) if piece)


def missing(wanted: tuple[str, ...], printed: str) -> str | None:
    """The first piece that is not found behind the one before it; None if all are there."""
    squeezed = _squeezed(printed)
    at = 0
    for piece in wanted:
        found = squeezed.find(piece, at)
        if found < 0:
            return piece
        at = found + len(piece)
    return None


def _squeezed(text: str) -> str:
    return "".join(text.split())
