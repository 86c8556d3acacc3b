"""An address may call so often, and then it waits."""

from __future__ import annotations

import pytest

from exchange.auth import call_budget
from exchange.auth.call_budget import CallBudget
from exchange.runtime.clock import ManualClock
from exchange.runtime.errors import ErrorReason, ServiceError


def refused_for(budget: CallBudget, address: str) -> float:
    with pytest.raises(ServiceError) as caught:
        budget.spend(address)
    assert caught.value.reason == ErrorReason.TOO_MANY_ATTEMPTS
    assert caught.value.retry_after_seconds is not None
    return caught.value.retry_after_seconds


def test_a_burst_is_let_in_and_then_as_many_as_are_refilled() -> None:
    clock = ManualClock()
    budget = CallBudget(clock, burst=3, per_minute=6)
    for _ in range(3):
        budget.spend("198.51.100.1")
    assert refused_for(budget, "198.51.100.1") == pytest.approx(10)
    clock.advance(9)
    assert refused_for(budget, "198.51.100.1") == pytest.approx(1)
    clock.advance(1.001)
    budget.spend("198.51.100.1")
    refused_for(budget, "198.51.100.1")
    clock.advance(3_600)
    for _ in range(3):
        budget.spend("198.51.100.1")
    refused_for(budget, "198.51.100.1")


def test_addresses_count_apart_but_a_network_of_ipv6_is_one() -> None:
    budget = CallBudget(ManualClock(), burst=1, per_minute=1)
    for address in ("198.51.100.1", "198.51.100.2", "2001:db8::1", "2001:db8:0:1::1"):
        budget.spend(address)
    for address in ("198.51.100.1", "2001:db8::2", "2001:db8:0:1:ffff::1"):
        refused_for(budget, address)


def test_memory_is_bounded_and_who_called_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_budget, "MAX_ADDRESSES", 2)
    budget = CallBudget(ManualClock(), burst=1, per_minute=1)
    budget.spend("198.51.100.1")
    budget.spend("198.51.100.2")
    refused_for(budget, "198.51.100.1")
    budget.spend("198.51.100.3")
    refused_for(budget, "198.51.100.1")
    budget.spend("198.51.100.2")
