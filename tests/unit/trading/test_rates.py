"""New orders in a second: of an account by its tier, of a key by its own limit, in shares of the instances that serve."""

from __future__ import annotations

import contextlib

import pytest

from exchange.runtime.clock import ManualClock
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import Principal
from exchange.trading.limits.buckets import Buckets
from exchange.trading.limits.rates import OrderRates
from exchange.trading.limits.tiers import TIERS, tier_of


class Rates(OrderRates):
    """With a clock of its own, and as many instances as a test says."""

    def __init__(self, count: int = 1) -> None:
        self.clock = ManualClock()
        self.count = count
        super().__init__(self.clock, lambda: self.count)

    def accepted(self, principal: Principal, tries: int) -> int:
        """How many of so many orders get in right now."""
        done = 0
        for _ in range(tries):
            with contextlib.suppress(ServiceError):
                self.take(principal)
                done += 1
        return done


def person(tier: str = "standard", account: str = "100001") -> Principal:
    return Principal(account, frozenset(), "token", tier=tier)


def key(per_second: int, name: str = "ak_1", tier: str = "standard", account: str = "100001") -> Principal:
    return Principal(account, frozenset(), "api-key", api_key=name, tier=tier, max_orders_per_second=per_second)


@pytest.mark.parametrize(
    ("tier", "per_second", "burst", "open_orders"),
    [
        ("standard", 50, 100, 1_000),
        ("professional", 500, 1_000, 5_000),
        ("institution", 20_000, 40_000, 100_000),
        ("market_maker", 20_000, 40_000, 100_000),
        ("development", 0, 0, 0),
    ],
)
def test_a_tier_says_what_its_accounts_may_do(tier: str, per_second: int, burst: int, open_orders: int) -> None:
    found = TIERS[tier]
    assert (found.orders_per_second, found.orders_burst, found.max_open_orders) == (per_second, burst, open_orders)


def test_a_tier_that_is_not_known_has_the_strictest_limits() -> None:
    assert tier_of(person("made up")) is TIERS["standard"]
    assert all(tier.orders_per_second >= 50 for tier in TIERS.values() if tier.name != "development")


def test_a_burst_gets_in_and_then_as_much_as_time_brings() -> None:
    rates = Rates()
    assert rates.accepted(person(), 130) == 100
    rates.clock.advance(0.1)
    assert rates.accepted(person(), 130) == 5
    rates.clock.advance(1.0)
    assert rates.accepted(person(), 130) == 50
    rates.clock.advance(3_600.0)
    assert rates.accepted(person(), 130) == 100, "a pause saves no more than the burst"


def test_a_steady_sender_at_the_limit_is_never_refused() -> None:
    rates = Rates()
    assert rates.accepted(person(), 100) == 100
    for _ in range(500):
        rates.clock.advance(0.02)
        rates.take(person())
        assert rates.accepted(person(), 1) == 0


def test_development_has_no_limit() -> None:
    rates = Rates()
    assert rates.accepted(person("development"), 5_000) == 5_000
    assert not rates.is_limited(person("development"))
    assert rates.is_limited(person("standard"))
    assert rates.is_limited(key(1, tier="development")), "a key may have one all the same"


def test_accounts_do_not_share_and_keys_of_an_account_do() -> None:
    rates = Rates()
    assert rates.accepted(key(0, "ak_1"), 60) == 60
    assert rates.accepted(key(0, "ak_2"), 60) == 40, "the account's burst is used up"
    assert rates.accepted(person(), 10) == 0
    assert rates.accepted(person(account="100002"), 60) == 60


def test_a_key_has_a_limit_of_its_own_beside_the_account_s() -> None:
    rates = Rates()
    assert rates.accepted(key(10), 50) == 20
    assert rates.accepted(key(30, "ak_2"), 100) == 60
    assert rates.accepted(person(), 100) == 20, "what is left of the account's hundred"


def test_a_refused_order_takes_nothing_from_either_bucket() -> None:
    rates = Rates()
    assert rates.accepted(key(10), 90) == 20
    assert rates.left(person()) == 80
    assert rates.accepted(person(), 80) == 80
    rates.clock.advance(10.0)
    rates.accepted(person(), 100)
    assert rates.accepted(key(10), 5) == 0
    assert rates.left(key(10)) == 0
    rates.clock.advance(0.1)
    assert rates.left(key(10)) == 5, "the account's five are what there is"
    assert rates.accepted(key(10), 9) == 5


@pytest.mark.parametrize(
    ("principal", "burst", "subject", "wait"),
    [
        (person(), 100, "account:100001", 0.02),
        (key(10), 20, "api-key:ak_1", 0.1),
        (key(1), 2, "api-key:ak_1", 1.0),
        (person("professional"), 1_000, "account:100001", 0.002),
    ],
)
def test_a_refusal_says_whose_limit_it_is_and_how_long_to_wait(
    principal: Principal, burst: int, subject: str, wait: float
) -> None:
    rates = Rates()
    assert rates.accepted(principal, burst) == burst
    with pytest.raises(ServiceError) as caught:
        rates.take(principal)
    refusal = caught.value
    assert refusal.reason == ErrorReason.QUOTA_EXCEEDED
    assert [violation.subject for violation in refusal.quota_violations] == [subject]
    assert refusal.metadata == {"limit": "orders_per_second"}
    assert refusal.retry_after_seconds == pytest.approx(wait)
    assert refusal.retry_after_seconds is not None
    rates.clock.advance(refusal.retry_after_seconds)
    rates.take(principal)


def test_each_instance_grants_its_share() -> None:
    rates = Rates(count=4)
    assert rates.left(person()) == 25
    assert rates.accepted(person(), 60) == 25
    rates.clock.advance(1.0)
    assert rates.accepted(person(), 60) == 12
    rates.count = 1
    rates.clock.advance(1.0)
    assert rates.accepted(person(), 99) == 50, "it counts them again after a while"


def test_a_share_is_never_less_than_one_order() -> None:
    rates = Rates(count=16)
    assert rates.accepted(key(1), 3) == 1
    rates.clock.advance(15.0)
    assert rates.accepted(key(1), 3) == 0
    rates.clock.advance(1.1)
    assert rates.accepted(key(1), 3) == 1


def test_what_is_left_is_looked_at_without_being_taken() -> None:
    rates = Rates()
    assert (rates.left(person()), rates.left(person())) == (100, 100)
    assert rates.left(key(10)) == 20
    assert rates.left(person("development")) == 0


def test_a_table_of_buckets_is_bounded_and_forgets_the_one_not_used_for_longest() -> None:
    buckets = Buckets(2)
    one, two = buckets.of("one", 5.0, 0.0), buckets.of("two", 5.0, 0.0)
    one.tokens = two.tokens = 1.0
    assert buckets.of("one", 5.0, 0.0) is one
    buckets.of("three", 5.0, 0.0)
    assert len(buckets) == 2
    assert buckets.of("one", 5.0, 0.0) is one
    assert buckets.of("two", 5.0, 0.0).tokens == 5.0, "it was forgotten, and begins full"
