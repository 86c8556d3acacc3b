"""What all streams share: how many an account may have open."""

import pytest

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.service.streaming import AccountStreams


def test_an_account_has_so_many_streams_open_and_no_more() -> None:
    streams = AccountStreams(limit=2)
    with streams.one("ann"), streams.one("ann"):
        with pytest.raises(ServiceError) as caught, streams.one("ann"):
            pass
        assert caught.value.reason == ErrorReason.TOO_MANY_STREAMS
        with streams.one("bob"):
            pass
    with streams.one("ann"):
        pass


def test_a_stream_that_failed_gives_its_place_back() -> None:
    streams = AccountStreams(limit=1)
    with pytest.raises(ValueError, match="broken"), streams.one("ann"):
        raise ValueError("broken")
    with streams.one("ann"):
        pass
