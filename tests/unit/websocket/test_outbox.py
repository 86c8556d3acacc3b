"""What waits for a client that does not read: bounded, and of newest values only the newest."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.websocket.counts import Counts
from exchange.websocket.limits import Allowance, Limits
from exchange.websocket.outbox import Lane, Outbox
from exchange.websocket.payload import LEAST_COMPRESSED_BYTES, PLAIN, WINDOW_BITS, Payload


class FakeWire:
    """Takes frames, or is full."""

    def __init__(self) -> None:
        self.window_bits = PLAIN
        self.is_open = True
        self.is_full = False
        self.room = 1_000_000
        self.frames: list[bytes] = []

    def write_frame(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.room -= 1
        self.is_full = self.room <= 0

    @property
    def said(self) -> list[Any]:
        return [json.loads(frame[2:]) for frame in self.frames]


class Story:
    """An outbox, and how often it overflowed."""

    def __init__(self, **limits: Any) -> None:
        self.wire = FakeWire()
        self.counts = Counts()
        self.overflows = 0
        self.outbox = Outbox(self.wire, replace(Limits(), **limits), self.counts, self._overflow)

    def _overflow(self) -> None:
        self.overflows += 1

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.outbox.put(Payload({"n": number}))

    def read(self, room: int = 1_000_000) -> list[int]:
        """The client takes so many messages."""
        before = len(self.wire.frames)
        self.wire.room, self.wire.is_full = room, False
        self.outbox.flush()
        return [one["n"] for one in self.wire.said[before:]]


def test_a_client_that_reads_gets_everything_at_once_and_in_order() -> None:
    story = Story()
    story.put(1, 2, 3)
    assert ([one["n"] for one in story.wire.said], len(story.outbox)) == ([1, 2, 3], 0)


def test_what_waits_goes_out_in_order_and_before_what_comes_later() -> None:
    story = Story()
    story.wire.is_full = True
    story.put(1, 2, 3)
    assert story.read(room=2) == [1, 2]
    story.put(4)
    assert story.read() == [3, 4]
    assert story.counts.take_high_water() == 3


@pytest.mark.parametrize("bound", [{"queue_messages": 3}, {"queue_bytes": 3 * len(b'{"n":1}')}])
def test_a_client_too_far_behind_overflows_once_and_holds_nothing_from_then_on(bound: dict[str, int]) -> None:
    story = Story(**bound)
    story.wire.is_full = True
    story.put(1, 2, 3)
    assert story.overflows == 0
    story.put(4, 5)
    assert (story.overflows, len(story.outbox), story.read()) == (1, 0, [])


def test_of_a_conflated_channel_one_message_waits_and_becomes_what_the_channel_shows_by_then() -> None:
    story = Story(queue_messages=2)
    shown = [0]
    lane, other = (Lane(lambda: Payload({"n": shown[0]})) for _ in range(2))
    story.wire.is_full = True
    for number in range(1, 1_000):
        shown[0] = number
        story.outbox.put_latest(Payload({"n": number}), lane)
    story.outbox.put_latest(Payload({"n": -1}), other)
    assert (len(story.outbox), story.overflows, story.counts.conflated) == (2, 0, 998)
    assert story.read() == [999, -1]
    story.outbox.put_latest(Payload({"n": 7}), lane)
    assert story.wire.said[-1] == {"n": 7}


def test_a_single_message_that_waited_is_sent_as_it_is_and_one_without_a_snapshot_is_left_out() -> None:
    def no_snapshot() -> Payload:
        raise ServiceError(ErrorReason.STATE_DIFFERS)

    story = Story()
    lane = Lane(no_snapshot)
    story.wire.is_full = True
    story.outbox.put_latest(Payload({"n": 1}), lane)
    assert story.read() == [1]
    story.wire.is_full = True
    story.outbox.put_latest(Payload({"n": 2}), lane)
    story.outbox.put_latest(Payload({"n": 3}), lane)
    assert story.read() == []
    story.wire.is_full = True
    story.outbox.put_latest(Payload({"n": 4}), lane)
    lane.drop()
    assert story.read() == []


def test_a_frame_is_made_once_for_each_window_and_short_messages_are_not_compressed() -> None:
    long = Payload({"text": "abc" * 1_000})
    plain, small = long.frame(PLAIN), long.frame(WINDOW_BITS)
    assert long.frame(WINDOW_BITS) is small
    assert len(small) < len(plain) / 10
    reading = PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=WINDOW_BITS,
        local_max_window_bits=WINDOW_BITS,
    )
    assert small[0] == 0xC1, "final, compressed, text"
    found = reading.decode(Frame(Opcode.TEXT, small[2:], rsv1=True))
    assert bytes(found.data) == long.data
    short = Payload({"n": 1})
    assert short.size < LEAST_COMPRESSED_BYTES
    assert short.frame(WINDOW_BITS) is short.frame(PLAIN)


def test_an_allowance_gives_its_burst_and_then_its_rate() -> None:
    allowance = Allowance(2.0, 3.0, now=0.0)
    assert [allowance.spend(0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert allowance.spend(0.0) == pytest.approx(0.5)
    assert allowance.spend(0.5) == 0.0
    assert allowance.spend(0.5) > 0.0
    assert [allowance.spend(100.0) for _ in range(4)][:3] == [0.0, 0.0, 0.0]
