"""Which instance of a service is restarted next."""

from __future__ import annotations

from typing import Any

from exchange.stack.rolling import next_of


def instances(**roles: str) -> list[dict[str, Any]]:
    """Entries of a status."""
    return [{"name": name, "role": role} for name, role in roles.items()]


def order(*steps: list[dict[str, Any]]) -> list[str]:
    """The names in the order in which they are chosen, where each step has other roles."""
    waiting = {entry["name"] for entry in steps[0]}
    chosen = []
    for step in steps:
        found = next_of(step, waiting)
        assert found is not None
        waiting.discard(found["name"])
        chosen.append(found["name"])
    assert next_of(steps[-1], waiting) is None
    return chosen


def test_followers_come_first_and_the_leader_last() -> None:
    fleet = instances(one="follower", two="leader", three="follower")

    assert order(fleet, fleet, fleet) == ["one", "three", "two"]


def test_who_has_become_the_leader_meanwhile_waits_until_the_end() -> None:
    before = instances(one="follower", two="follower", three="leader")
    after = instances(one="follower", two="leader", three="follower")

    assert order(before, after, after) == ["one", "three", "two"]


def test_one_that_is_gone_meanwhile_is_left_out() -> None:
    assert next_of(instances(one="leader"), {"two"}) is None
