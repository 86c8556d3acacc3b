"""Who a call acts as."""

import pytest
import structlog

from exchange.runtime.clock import ManualClock
from exchange.runtime.config import Environment, RuntimeConfig
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import (
    ALL_ROLES,
    ALL_SCOPES,
    DenyingResolver,
    DevelopmentResolver,
    Principal,
    is_loopback_peer,
    resolver_for,
)

HERE = "ipv4:127.0.0.1:53211"


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:53211", True),
        ("ipv4:127.8.9.10:1", True),
        ("ipv6:[::1]:53211", True),
        ("ipv6:%5B::1%5D:53211", True),
        ("ipv6:[::ffff:127.0.0.1]:1", True),
        ("unix:/run/pincex.sock", True),
        ("unix:", True),
        ("ipv4:10.0.0.7:53211", False),
        ("ipv4:128.0.0.1:53211", False),
        ("ipv6:[2001:db8::1]:53211", False),
        ("ipv6:[::ffff:10.0.0.1]:1", False),
        ("ipv4:127.0.0.1.evil.example:1", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_loopback_peers(peer, local):
    assert is_loopback_peer(peer) is local


def test_anonymous_calls_act_as_demo_or_the_named_account():
    resolver = DevelopmentResolver()
    assert resolver.resolve(HERE, ()) == Principal("demo", frozenset(), "development", ALL_SCOPES)
    assert resolver.resolve(HERE, (("x-pincex-account", "maker_1.a-b"),)).account == "maker_1.a-b"


def test_the_ops_server_acts_as_ops_local_and_reads_as_a_named_account():
    resolver = DevelopmentResolver(operator=True)
    assert resolver.resolve(HERE, ()) == Principal("ops-local", ALL_ROLES, "ops-local", ALL_SCOPES)
    assert resolver.resolve(HERE, (("x-pincex-account", "demo"),)) == Principal(
        "demo", ALL_ROLES, "ops-local", ALL_SCOPES
    )
    assert resolver.resolve(HERE, ()).has_role("operator")
    assert not DevelopmentResolver().resolve(HERE, ()).has_role("operator")


@pytest.mark.parametrize("account", ["", "a" * 65, "a b", "a/b", "ä", "demo\n", b"demo"])
def test_a_name_of_another_form_is_refused(account):
    with pytest.raises(ServiceError) as caught:
        DevelopmentResolver().resolve(HERE, (("x-pincex-account", account),))
    assert caught.value.reason == ErrorReason.INVALID_FIELD
    assert caught.value.metadata["field"] == "x-pincex-account"


@pytest.mark.parametrize(
    ("peer", "metadata", "allowed"),
    [
        (HERE, (("x-forwarded-for", "127.0.0.1"),), True),
        (HERE, (("x-forwarded-for", "127.0.0.1, ::1"),), True),
        (HERE, (("x-envoy-external-address", "127.0.0.1"),), True),
        (HERE, (("x-forwarded-for", "10.0.0.9"),), False),
        (HERE, (("x-forwarded-for", "127.0.0.1, 10.0.0.9"),), False),
        (HERE, (("x-forwarded-for", "10.0.0.9"), ("x-forwarded-for", "127.0.0.1")), False),
        (HERE, (("x-forwarded-for", ""),), False),
        (HERE, (("x-forwarded-for", "localhost"),), False),
        (HERE, (("x-envoy-external-address", "203.0.113.5"),), False),
        ("ipv4:10.0.0.9:1", (), False),
        ("ipv4:10.0.0.9:1", (("x-forwarded-for", "127.0.0.1"),), False),
    ],
)
def test_only_this_machine_is_let_in_through_the_edge_too(peer, metadata, allowed):
    resolver = DevelopmentResolver()
    if allowed:
        assert resolver.resolve(peer, metadata).account == "demo"
        return
    with pytest.raises(ServiceError) as caught:
        resolver.resolve(peer, metadata)
    assert caught.value.reason == ErrorReason.UNAUTHENTICATED


def test_the_warning_comes_at_most_once_a_minute():
    clock = ManualClock()
    with structlog.testing.capture_logs() as lines:
        resolver = DevelopmentResolver(clock=clock)
        for _ in range(100):
            resolver.resolve(HERE, ())
        assert len(lines) == 1
        clock.advance(59.9)
        resolver.resolve(HERE, ())
        assert len(lines) == 1
        clock.advance(0.2)
        resolver.resolve(HERE, ())
    assert len(lines) == 2
    assert lines[0]["log_level"] == "warning"


def test_names_at_will_do_not_fill_the_memory():
    resolver = DevelopmentResolver()
    for number in range(5_000):
        resolver.resolve(HERE, (("x-pincex-account", f"a{number}"),))
    assert len(resolver._known) <= 1024


def test_every_profile_but_development_knows_nobody():
    def config(profile: str) -> RuntimeConfig:
        return RuntimeConfig.read(Environment({"PINCEX_PROFILE": profile}), "s")

    for operator in (False, True):
        assert isinstance(resolver_for(config("development"), operator=operator), DevelopmentResolver)
        resolver = resolver_for(config("production"), operator=operator)
        assert isinstance(resolver, DenyingResolver)
        with pytest.raises(ServiceError) as caught:
            resolver.resolve(HERE, (("x-pincex-account", "demo"),))
        assert caught.value.reason == ErrorReason.UNAUTHENTICATED
