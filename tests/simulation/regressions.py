"""Seeds that found a bug, with the number of steps and what it was.

A seed names a schedule only for as long as engine and simulation draw the same numbers. What must stay found is planted
too: see `planted.py`.
"""

from __future__ import annotations

from typing import Final

REGRESSIONS: Final = (
    (112, 12_000, "wait_for swallowed a cancellation: an instance that was to lead hung for ever"),
    (213, 12_000, "the same, behind a hand-over"),
    (227, 12_000, "of a session's commands the older expired and the younger were applied"),
    (1330, 12_000, "of a session's commands one was refused by a stalled leader and the next applied by another"),
    (173, 12_000, "a stream went on in another history after a fail-over of the database"),
    (109, 12_000, "a leader whose lease had run out told a follower its own head as the newest"),
    (163, 12_000, "after a warning an append counted as durable because another server answered"),
)
