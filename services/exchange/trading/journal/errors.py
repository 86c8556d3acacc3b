"""What can go wrong with a journal, and nothing else.

Four outcomes that a caller treats differently: step down, wait and retry, refuse to start, read from
a snapshot instead. Anything else that a journal raises is a programming error.
"""


class JournalError(Exception):
    """The journal could not do what was asked; the base of the other classes here."""


class Fenced(JournalError):
    """Another leader holds a higher epoch: this one must step down and discard what it has not committed."""


class JournalUnavailable(JournalError):
    """The store cannot be reached, or the journal was closed: the outcome of the call is unknown."""


class JournalCorrupt(JournalError):
    """What is stored is not what was written. The message names the shard, the sequence and the difference."""

    def __init__(self, shard: int, sequence: int, difference: str) -> None:
        super().__init__(f"shard {shard}, sequence {sequence}: {difference}")
        self.shard = shard
        self.sequence = sequence
        self.difference = difference


class Diverged(JournalError):
    """What a core has applied is not what the journal holds: it must begin again from there.

    A follower comes to it where a commit was seen and then lost with its server, before a standby had it.
    """


class BelowFloor(JournalError):
    """The frames asked for have been archived; `floor` is the oldest sequence still here."""

    def __init__(self, shard: int, sequence: int, floor: int) -> None:
        super().__init__(f"shard {shard}: sequence {sequence} is below the retained floor {floor}")
        self.shard = shard
        self.sequence = sequence
        self.floor = floor
