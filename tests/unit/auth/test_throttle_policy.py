"""What a failed attempt costs, by number; and which addresses are one."""

from __future__ import annotations

import pytest

from exchange.auth.throttle import network_of, normal_address
from exchange.auth.throttle_policy import ThrottlePolicy
from exchange.runtime.config import ConfigError, Environment


def test_waits_double_from_the_fourth_failure_and_the_tenth_locks() -> None:
    waits = [ThrottlePolicy().name_wait_s(failures) for failures in range(12)]
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 900, 900]


def test_a_wait_has_a_longest_and_huge_numbers_are_no_trouble() -> None:
    patient = ThrottlePolicy(name_limit=1_000)
    assert [patient.name_wait_s(failures) for failures in (9, 10, 11, 999, 1_000)] == [32, 60, 60, 60, 900]


def test_an_address_waits_for_nothing_until_it_is_blocked() -> None:
    assert [ThrottlePolicy().address_wait_s(failures) for failures in (0, 29, 30, 31)] == [0, 0, 900, 900]


def test_settings_are_read_and_bounded() -> None:
    assert ThrottlePolicy.read(Environment({})) == ThrottlePolicy()
    read = ThrottlePolicy.read(Environment({"PINCEX_LOGIN_NAME_LIMIT": "2", "PINCEX_LOGIN_LOCK_SECONDS": "60"}))
    assert [read.name_wait_s(failures) for failures in range(4)] == [0, 0, 60, 60]
    for name in ("NAME_LIMIT", "ADDRESS_LIMIT", "WINDOW_SECONDS", "LOCK_SECONDS"):
        with pytest.raises(ConfigError, match=f"PINCEX_LOGIN_{name}"):
            ThrottlePolicy.read(Environment({f"PINCEX_LOGIN_{name}": "0"}))


@pytest.mark.parametrize(
    ("address", "first", "last"),
    [
        ("203.0.113.7", "203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8:0:1:8000::", "2001:db8:0:1::", "2001:db8:0:1:ffff:ffff:ffff:ffff"),
    ],
)
def test_an_address_of_ipv6_stands_for_its_network(address: str, first: str, last: str) -> None:
    assert network_of(address) == (first, last)


def test_an_address_has_one_form() -> None:
    assert normal_address("::ffff:203.0.113.7") == "203.0.113.7"
    assert normal_address("2001:DB8:0::1") == "2001:db8::1"
    assert normal_address("fe80::1%eth0") == "fe80::1"
    for wrong in ("", "203.0.113.7:80", "fe80::1/64", "host"):
        with pytest.raises(ValueError, match="does not appear to be"):
            normal_address(wrong)
