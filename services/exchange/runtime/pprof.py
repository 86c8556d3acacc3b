"""Memory traces as a pprof profile, readable by `go tool pprof` and by any other tool of that format.

The format is `perftools.profiles.Profile` (github.com/google/pprof, proto/profile.proto), gzipped. It has a dozen
fields that we use and is no contract of ours, so they are written by hand here: field numbers below are that file's.
"""

import gzip
import sys
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

# A frame: (file, line). A stack begins with the innermost.
Frame = tuple[str, int]
_NOT_TRACED: Final = "(not traced)"
_SHOWN_PATH_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class MemorySample:
    """What one stack of calls holds: `objects` blocks, `size_bytes` in all."""

    stack: Sequence[Frame]
    objects: int
    size_bytes: int


@dataclass(slots=True)
class _Tables:
    """The profile's tables: everything is said once and referred to by number."""

    strings: dict[str, int] = field(default_factory=lambda: {"": 0})
    locations: dict[Frame, int] = field(default_factory=dict)
    encoded: bytearray = field(default_factory=bytearray)

    def string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def location(self, frame: Frame) -> int:
        """Return the frame's number; a function of the same number stands for the line, as Python has no addresses."""
        known = self.locations.get(frame)
        if known is not None:
            return known
        number = len(self.locations) + 1
        self.locations[frame] = number
        file, line = frame
        name = self.string(_shown(file, line))
        function = _uint(1, number) + _uint(2, name) + _uint(3, name) + _uint(4, self.string(file))
        self.encoded += _message(5, function)
        line_message = _uint(1, number) + _uint(2, line)
        location = _uint(1, number) + _uint(2, 1) + _uint(3, 0x1000 + number) + _message(4, line_message)
        self.encoded += _message(4, location)
        return number


def samples_of(snapshot: tracemalloc.Snapshot) -> Iterable[MemorySample]:
    """Yield the snapshot's stacks, innermost frame first."""
    for statistic in snapshot.statistics("traceback"):
        stack = [(frame.filename, frame.lineno) for frame in reversed(statistic.traceback)]
        yield MemorySample(stack, statistic.count, statistic.size)


def encode_heap_profile(
    samples: Iterable[MemorySample], *, time_ns: int, untraced_bytes: int = 0, comments: Sequence[str] = ()
) -> bytes:
    """Return the gzipped profile with sample types inuse_objects/count and inuse_space/bytes.

    `untraced_bytes` becomes one sample "(not traced)", so that the total is the process's. `comments` are shown by
    `go tool pprof -comments`.
    """
    tables = _Tables()
    out = bytearray()
    for kind, unit in (("inuse_objects", "count"), ("inuse_space", "bytes")):
        out += _message(1, _uint(1, tables.string(kind)) + _uint(2, tables.string(unit)))
    if untraced_bytes > 0:
        samples = [*samples, MemorySample([(_NOT_TRACED, 0)], 1, untraced_bytes)]
    for sample in samples:
        ids = b"".join(_varint(tables.location(frame)) for frame in sample.stack)
        values = _varint(sample.objects) + _varint(sample.size_bytes)
        out += _message(2, _message(1, ids) + _message(2, values))
    mapping = _uint(1, 1) + _uint(3, 1 << 47) + _uint(5, tables.string(sys.executable)) + _uint(7, 1)
    out += _message(3, mapping)
    out += tables.encoded
    out += _uint(9, time_ns)
    out += _message(11, _uint(1, tables.string("space")) + _uint(2, tables.string("bytes")))
    out += _uint(12, 1)
    for comment in comments:
        out += _uint(13, tables.string(comment))
    out += _uint(14, tables.string("inuse_space"))
    # Last: the table is complete only now. Index 0 is the empty text.
    for text in tables.strings:
        out += _message(6, text.encode("utf-8", "replace"))
    return gzip.compress(bytes(out), compresslevel=1)


def _shown(file: str, line: int) -> str:
    if line == 0:
        return file
    # pprof takes what stands in angle brackets, such as "<frozen importlib._bootstrap>", for C++ templates: off.
    name = file.replace("<", "[").replace(">", "]")
    return "/".join(PurePath(name).parts[-_SHOWN_PATH_PARTS:]) + f":{line}"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _uint(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _message(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body
