"""Which server of the pair is the primary: a small file that is durable before anything acts on it.

It is the only answer to "who may write", so a start after a crash at any moment finds one primary, never two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from exchange.stack.errors import StackError
from exchange.stack.files import write_private

if TYPE_CHECKING:
    from pathlib import Path

STATE_FILE = "postgres-pair.json"
FIRST, SECOND = NUMBERS = (1, 2)


class Standby(Enum):
    """What the server that is not the primary is good for."""

    ABSENT = "absent"
    """Its data are not a standby's of this primary: they are made anew before it starts."""

    FOLLOWING = "following"
    """It streams or will; the primary commits without it, so it may lack what was acknowledged."""

    IN_SYNC = "in_sync"
    """Every commit that was acknowledged is on its disk: it may be promoted."""


@dataclass(frozen=True, slots=True)
class PairState:
    """`epoch` counts the primaries; `primary` is 1 or 2."""

    epoch: int
    primary: int
    standby: Standby

    @property
    def other(self) -> int:
        """The number of the server that is not the primary."""
        return FIRST + SECOND - self.primary

    def with_standby(self, standby: Standby) -> PairState:
        """The same primary, another use of the standby."""
        return PairState(self.epoch, self.primary, standby)

    def failed_over(self) -> PairState:
        """The other one is the primary now; the former one's data have to be made anew."""
        return PairState(self.epoch + 1, self.other, Standby.ABSENT)


def load(home: Path) -> PairState | None:
    """What was saved last; None in a folder that has no pair. Raises StackError if it cannot be read: never guess."""
    file = home / STATE_FILE
    try:
        match json.loads(file.read_text()):
            case {"epoch": int(epoch), "primary": 1 | 2 as primary, "standby": str(standby)}:
                return PairState(epoch, primary, Standby(standby))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StackError(f"{file} cannot be read ({error}): it says which PostgreSQL is the primary") from error
    raise StackError(f"{file} does not say which PostgreSQL is the primary")


def save(home: Path, state: PairState) -> None:
    """Returns when it would survive a power cut."""
    text = json.dumps({"epoch": state.epoch, "primary": state.primary, "standby": state.standby.value})
    write_private(home / STATE_FILE, text + "\n", durable=True)
