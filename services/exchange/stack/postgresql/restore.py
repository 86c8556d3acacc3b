"""A database made from a backup, and brought up to date with what the journal has got since: its tail.

The journal is the record of all that the engine did. A backup and the frames after it give the state of the last of them;
settlement, candles and the like go on from their own offsets when their services start. What other services wrote by
themselves since (users, withdrawals, KYC cases, the audit trail) is in the backup only as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from exchange.stack.errors import StackError
from exchange.stack.postgresql.backup import connected, digest_of, drop, make_from, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

_SHARD = 0
_HEAD: LiteralString = (
    "SELECT last_sequence, hash FROM journal_frames WHERE shard = {} ORDER BY first_sequence DESC LIMIT 1"
)
_TAIL: LiteralString = (
    "COPY (SELECT * FROM journal_frames WHERE shard = {} AND first_sequence > {} ORDER BY first_sequence)"
    " TO STDOUT (FORMAT binary)"
)
_FIRST: LiteralString = (
    "SELECT first_sequence, prev_hash FROM journal_frames WHERE shard = {} AND first_sequence > {}"
    " ORDER BY first_sequence LIMIT 1"
)
# Whoever leads next must come after every leader that wrote a frame.
_EPOCHS: tuple[LiteralString, ...] = (
    "UPDATE journal_fence f SET epoch = greatest(f.epoch, (SELECT max(epoch) FROM journal_frames j WHERE j.shard = f.shard))",
    "UPDATE journal_lease l SET epoch = greatest(l.epoch, (SELECT max(epoch) FROM journal_frames j WHERE j.shard = l.shard))",
)


@dataclass(frozen=True, slots=True)
class Restored:
    """How far the backup's journal went, and how far that of the new database goes; 0: no frame."""

    backup_sequence: int
    sequence: int


def restore(url: str, file: Path, name: str, *, tail_url: str = "") -> Restored:
    """Makes the database `name` on the server of `url`, the tables' owner, from a backup, and adds the journal's tail.

    The tail is read in the database of `tail_url`: the one that was backed up, or a standby of it; empty: none is added. Nothing
    is left behind by a failure. Raises StackError, also where the dump is not what was written, where a database of that name
    is there, and where the tail does not continue the backup.
    """
    if digest_of(file) != read_manifest(file)["sha256"]:
        raise StackError(f"{file} is not what was written")
    with connected(url) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            raise StackError(f"there is a database {name} already: name another one, or drop it")
        make_from(connection, url, file, name)
        try:
            with connected(make_conninfo(url, dbname=name)) as target:
                _give_to_owner(target, name)
                before = _head(target)
                if not tail_url:
                    return Restored(before[0], before[0])
                with connected(tail_url) as source:
                    _copy_tail(source, target, *before)
                return Restored(before[0], _head(target)[0])
        except BaseException:
            drop(connection, name)
            raise


def _give_to_owner(connection: psycopg.Connection[Any], name: str) -> None:
    """Who owns the tables owns the database too, as with the one that was backed up: partitions are made by that role."""
    row = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'journal_frames'").fetchone()
    if row is None:
        raise StackError("the backup is of no exchange: it has no journal")
    connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(row[0])))


def _head(connection: psycopg.Connection[Any]) -> tuple[int, bytes]:
    """The last sequence and the hash of the last frame; 0 and nothing of an empty journal."""
    row = connection.execute(sql.SQL(_HEAD).format(_SHARD)).fetchone()
    return (0, b"") if row is None else (row[0], bytes(row[1]))


def _copy_tail(
    source: psycopg.Connection[Any], target: psycopg.Connection[Any], sequence: int, frame_hash: bytes
) -> None:
    """All frames after `sequence`, as they are."""
    with source.transaction():
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        first = source.execute(sql.SQL(_FIRST).format(_SHARD, sequence)).fetchone()
        if first is None:
            return
        if first[0] != sequence + 1 or (frame_hash and bytes(first[1]) != frame_hash):
            raise StackError(
                f"the journal of {conninfo_to_dict(str(source.info.dsn)).get('dbname')} does not continue the backup, which "
                f"ends at sequence {sequence}: its next frame begins at {first[0]}"
            )
        last = _head(source)[0]
        with target.transaction():
            # One call covers the partition of its argument and the two after it.
            covered = 0
            while covered <= last:
                row = target.execute("SELECT journal_ensure_partitions(%s)", (max(covered, sequence + 1),)).fetchone()
                assert row is not None, "it returns a number"
                covered = row[0]
            with (
                source.cursor().copy(sql.SQL(_TAIL).format(_SHARD, sequence)) as reading,
                target.cursor().copy("COPY journal_frames FROM STDIN (FORMAT binary)") as writing,
            ):
                for block in reading:
                    writing.write(block)
            for statement in _EPOCHS:
                target.execute(statement)
