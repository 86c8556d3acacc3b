"""Frames for tests: each follows the one before it, with bytes that tell where they came from."""

import hashlib
from collections.abc import Iterator

from exchange.trading.journal.contract import GENESIS_HASH, Frame, StoredSnapshot


def next_frame(
    previous: Frame | tuple[int, bytes] | None = None,
    *,
    epoch: int = 1,
    commands: int = 1,
    mark: str = "",
    size: int = 40,
) -> Frame:
    """The frame of `commands` commands after `previous` (a frame, or a head); `mark` makes its bytes unlike others."""
    last, prev_hash = (0, GENESIS_HASH)
    if isinstance(previous, Frame):
        last, prev_hash = previous.last_sequence, previous.hash
    elif previous is not None:
        last, prev_hash = previous
    label = f"{last + 1}/{mark}/".encode()
    return Frame.seal(
        shard=0,
        first_sequence=last + 1,
        last_sequence=last + commands,
        epoch=epoch,
        time_ns=1_700_000_000_000_000_000 + last,
        commands=(b"command " + label) * max(1, size * commands // 40),
        events=(b"events of " + label) * max(1, size * commands // 40),
        digest=hashlib.sha256(label).digest(),
        prev_hash=prev_hash,
        format_version=1,
        rules_version=1,
    )


def chain(count: int, *, epoch: int = 1, commands: int = 2, size: int = 40) -> list[Frame]:
    """`count` frames from sequence 1 on."""
    return list(endless(None, epoch=epoch, commands=commands, size=size, count=count))


def endless(
    previous: Frame | None, *, epoch: int = 1, commands: int = 2, size: int = 40, count: int | None = None
) -> Iterator[Frame]:
    """Frames that follow one another, `count` of them or without end."""
    made = 0
    while count is None or made < count:
        previous = next_frame(previous, epoch=epoch, commands=commands, size=size)
        made += 1
        yield previous


def snapshot_at(frame: Frame, *, state: bytes = b"state", state_hash: str = "aa" * 32) -> StoredSnapshot:
    """A snapshot of the state after the frame."""
    return StoredSnapshot(
        shard=frame.shard,
        sequence=frame.last_sequence,
        time_ns=frame.time_ns,
        state=state,
        state_hash=state_hash,
        digest=frame.digest,
        frame_hash=frame.hash,
        format_version=1,
        rules_version=1,
    )
