"""Proves the chain: every record is as it was hashed, follows the one before, and none is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Final, Protocol

from exchange.runtime.audit.hashing import GENESIS, StoredRecord, hash_of

PAGE_RECORDS: Final = 500
"""Records that a verification reads and hashes at a time: some milliseconds of the event loop."""

PRUNED: Final = "audit.pruned"


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends: the number and the hash of its last record."""

    sequence: int = 0
    digest: bytes = GENESIS


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a pruned chain begins: the last record that went, when that was (microseconds since 1970 UTC), and the number
    of the record that tells of it.
    """

    last: Head
    pruned_micros: int
    told_at: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`records` were proved, up to `head`, from `anchor` on where older ones were pruned. `broken` is the first number that
    does not fit, 0 while all do.
    """

    records: int
    head: Head
    broken: int = 0
    problem: str = ""
    anchor: Anchor | None = None


class Pages(Protocol):
    """What is read from (`reader.RecordReader`)."""

    async def after(self, sequence: int, until: int, limit: int) -> list[StoredRecord]:
        """The first `limit` records above `sequence` and not above `until`, in order."""
        ...

    async def at(self, sequence: int) -> StoredRecord | None:
        """One record."""
        ...

    async def anchor(self) -> Anchor | None:
        """Where the chain begins, None at the first record of all."""
        ...


async def verify(pages: Pages, until: int, start: Head | None = None) -> Verdict:
    """Prove the records after `start` (the beginning) up to number `until`, which has been seen in the trail.

    Ends at the first that does not fit. What is appended meanwhile is not looked at. Raises what `pages` raise.
    """
    head = start if start is not None else Head()
    records = 0
    while head.sequence < until:
        page = await pages.after(head.sequence, until, PAGE_RECORDS)
        for record in page:
            problem = _problem(head, record)
            if problem:
                return Verdict(records, head, head.sequence + 1, problem)
            head = Head(record.sequence, record.hash)
            records += 1
        if not page:
            return Verdict(records, head, head.sequence + 1, f"record {head.sequence + 1} is missing")
    return Verdict(records, head)


async def verify_all(pages: Pages, until: int) -> Verdict:
    """Prove all records that are kept, up to number `until`; also where older ones are pruned meanwhile."""
    anchor = await pages.anchor()
    while True:
        verdict = await verify(pages, until, anchor.last if anchor is not None else None)
        if verdict.broken:
            now = await pages.anchor()
            if now != anchor:
                anchor = now
                continue
        elif anchor is not None:
            problem = await _untold(pages, anchor)
            if problem:
                return replace(verdict, broken=anchor.last.sequence + 1, problem=problem, anchor=anchor)
        return replace(verdict, anchor=anchor)


async def _untold(pages: Pages, anchor: Anchor) -> str:
    """What is wrong where no record of the chain tells of this anchor: then it was set by hand, to cut the beginning off."""
    record = await pages.at(anchor.told_at)
    expected = json.dumps({"through": anchor.last.sequence, "hash": anchor.last.digest.hex()}, separators=(",", ":"))
    if record is None or record.action != PRUNED or record.details != expected:
        if await pages.anchor() != anchor:
            return ""
        return f"no record tells that those up to {anchor.last.sequence} were pruned: the beginning was cut off"
    return ""


async def known_problem(pages: Pages, known: Head, newest: int) -> str:
    """What is wrong with a head that was written down elsewhere; "" where it still stands in the chain."""
    if known.sequence > newest:
        return f"the trail ends at record {newest}, but record {known.sequence} was known: its end was cut off"
    record = await pages.at(known.sequence)
    if record is None:
        return f"record {known.sequence} was known and is missing"
    if record.hash != known.digest:
        return f"record {known.sequence} had the hash {known.digest.hex()}: the trail was written anew"
    return ""


def _problem(head: Head, record: StoredRecord) -> str:
    expected = head.sequence + 1
    if record.sequence != expected:
        return f"record {expected} is missing: {record.sequence} follows {head.sequence}"
    if hash_of(record) != record.hash:
        return f"record {expected} is not what was hashed: it was altered, moved or put in"
    if record.prev_hash != head.digest:
        return f"record {expected} does not follow record {head.sequence}: one of both was replaced"
    return ""
