"""A journal as text: a header line, then one line a frame, bytes in base64."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exchange.trading.core.constants import RULES_VERSION
from exchange.trading.journal.contract import Frame

RULES = tuple(range(1, RULES_VERSION + 1))
_BYTES = ("commands", "events", "digest", "prev_hash", "hash")


@dataclass(frozen=True)
class Header:
    """What a replay must end with; `events_sha256` covers the event bytes of all frames."""

    sequence: int
    state_hash: str
    book_hashes: dict[str, str]
    events_sha256: str


def golden(rules: int) -> Path:
    """The journal that ends under these rules."""
    return Path(__file__).with_name(f"format1-rules{rules}.jsonl")


def write(path: Path, header: Header, frames: list[Frame]) -> None:
    lines = [json.dumps(asdict(header), sort_keys=True)]
    for frame in frames:
        fields: dict[str, Any] = asdict(frame)
        for name in _BYTES:
            fields[name] = b64encode(fields[name]).decode()
        lines.append(json.dumps(fields))
    path.write_text("\n".join(lines) + "\n")


def read(path: Path) -> tuple[Header, list[Frame]]:
    first, *rest = path.read_text().splitlines()
    frames = []
    for line in rest:
        fields = json.loads(line)
        for name in _BYTES:
            fields[name] = b64decode(fields[name])
        frames.append(Frame(**fields))
    return Header(**json.loads(first)), frames
