"""Prometheus texts of several instances as one, every series with the label `instance`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# Within a quoted value the quotation mark would have a backslash before it.
_HAS_INSTANCE: Final = re.compile(r'[{,]\s*instance="')


def merged(texts: Mapping[str, str]) -> str:
    """One text of several, by instance name. Families keep the order in which they are first met, and stand together, as
    the format demands; HELP and TYPE are those of the first instance that has the family.
    """
    families: dict[str, list[str]] = {}
    headers: dict[str, list[str]] = {}
    for instance, text in texts.items():
        label = 'instance="' + instance.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        family = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                known = headers.setdefault(family, [])
                if not any(other.split(" ", 3)[1] == line.split(" ", 3)[1] for other in known):
                    known.append(line)
            elif line and not line.startswith("#"):
                families.setdefault(family, []).append(_labelled(line, label))
    lines: list[str] = []
    for family, header in headers.items():
        lines += [*header, *families.pop(family, [])]
    for samples in families.values():
        lines += samples
    return "\n".join(lines) + "\n"


def _labelled(sample: str, label: str) -> str:
    """A sample with the label added, unless it has it already."""
    if _HAS_INSTANCE.search(sample):
        return sample
    name, brace, rest = sample.partition("{")
    if brace and " " not in name:
        return f"{name}{{{label},{rest}" if not rest.startswith("}") else f"{name}{{{label}{rest}"
    name, _, value = sample.partition(" ")
    return f"{name}{{{label}}} {value}"
