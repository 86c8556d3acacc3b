"""A light check of tone: speeds stand in perf.log or under "Measured", and documents do not advertise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [document.relative_to(ROOT).as_posix() for document in DOCUMENTS]

_SPEED = re.compile(
    r"(\d[\d,.]*) ?(?:orders|commands|requests|trades|messages|updates|frames)(?:/s\b| (?:a|per) second)", re.IGNORECASE
)
_ADVERTISING = re.compile(
    r"\b(?:blazing\w*|lightning.fast|world.class|state.of.the.art|cutting.edge|seamless\w*|effortless\w*|battle.tested"
    r"|enterprise.grade|best.in.class|next.generation|revolutionary|powerful|robust)\b",
    re.IGNORECASE,
)


def unmeasured(text: str, measured: str) -> list[str]:
    """Speeds that a document claims and no measurement has; a section "Measured" says itself where it comes from."""
    sections = re.split(r"^(?=#+ )", text, flags=re.MULTILINE)
    claims = [
        match
        for section in sections
        if not (section.lstrip("# ").startswith("Measured") and "perf.log" in section)
        for match in _SPEED.finditer(section)
    ]
    return [match[0] for match in claims if match[1] not in measured]


# A report of a campaign is a measurement itself.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "docs/reliability-report.md"])
def test_speeds_are_those_of_the_measurements(name: str) -> None:
    log = ROOT / "perf.log"
    measured = log.read_text(encoding="utf-8") if log.exists() else ""
    assert unmeasured((ROOT / name).read_text(encoding="utf-8"), measured) == []


@pytest.mark.parametrize("name", NAMES)
def test_documents_do_not_advertise(name: str) -> None:
    assert _ADVERTISING.findall((ROOT / name).read_text(encoding="utf-8")) == []


def test_an_invented_speed_is_found() -> None:
    text = "# A\nIt does 1,000 orders/s.\n## Measured\nperf.log: 2,000 orders/s\n"
    assert unmeasured(text, "") == ["1,000 orders/s"]
    assert unmeasured(text, "session 1,000") == []
