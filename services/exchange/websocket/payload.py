"""A message to clients: made into JSON once, and into a frame once for each kind of compression in use.

Servers do not mask, and nothing of one message's compression reaches into the next (`server_no_context_takeover` is part
of every handshake here): so the bytes on the wire are the same for all clients with the same window.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode

# 4 KiB windows: messages are short, and memory is for each message, not for each connection.
WINDOW_BITS: Final = 12
# Shorter ones do not get shorter.
LEAST_COMPRESSED_BYTES: Final = 200
_SETTINGS: Final = {"memLevel": 5}
PLAIN: Final = 0

_encode: Final = msgspec.json.Encoder().encode


class Payload:
    """One message. `size` is the length of its JSON in bytes."""

    __slots__ = ("_frames", "data")

    def __init__(self, body: dict[str, Any]) -> None:
        self.data: bytes = _encode(body)
        self._frames: dict[int, bytes] = {}

    @property
    def size(self) -> int:
        """Bytes of its JSON."""
        return len(self.data)

    def frame(self, window_bits: int) -> bytes:
        """The bytes on the wire, for a window of so many bits; PLAIN without compression."""
        if len(self.data) < LEAST_COMPRESSED_BYTES:
            window_bits = PLAIN
        found = self._frames.get(window_bits)
        if found is None:
            extensions = [] if window_bits == PLAIN else [_deflate(window_bits)]
            found = self._frames[window_bits] = bytes(
                Frame(Opcode.TEXT, self.data).serialize(mask=False, extensions=extensions)
            )
        return found


def compression() -> ServerPerMessageDeflateFactory:
    """What is offered in the handshake (RFC 7692)."""
    return ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=WINDOW_BITS,
        client_max_window_bits=WINDOW_BITS,
        compress_settings=_SETTINGS,
    )


def window_bits_of(extensions: list[Any]) -> int:
    """What a handshake agreed on, for `Payload.frame`."""
    for extension in extensions:
        if isinstance(extension, PerMessageDeflate):
            return extension.local_max_window_bits
    return PLAIN


def _deflate(window_bits: int) -> PerMessageDeflate:
    return PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=WINDOW_BITS,
        local_max_window_bits=window_bits,
        compress_settings=_SETTINGS,
    )
