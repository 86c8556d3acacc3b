"""`python -m exchange.trading.past`: answers one question about the past, as lines of JSON (`answers.py`).

    book SHARD SYMBOL SEQUENCE    the book of a market after a sequence
    verify SHARD FROM TO          progress, the result last

DATABASE_URL says where the journal is. A refusal is an answer too: the status is 0.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from exchange.runtime import process
from exchange.runtime.config import Environment
from exchange.trading import apart
from exchange.trading.journal.contract import Journal
from exchange.trading.journal.postgres import PostgresJournal
from exchange.trading.past.answers import Answer, PastRefused, refusing, to_line
from exchange.trading.past.books import book_at
from exchange.trading.past.proof import prove


async def answers(journal: Journal, question: list[str]) -> AsyncIterator[Answer]:
    """The answers to a question in words. Raises PastRefused, and ValueError for words that are none."""
    match question:
        case ["book", symbol, sequence]:
            yield await book_at(journal, symbol, int(sequence))
        case ["verify", first, last]:
            async for progress in prove(journal, int(first), int(last)):
                yield progress
        case _:
            raise ValueError(f"not a question about the past: {question}")


async def main() -> None:
    """Answer the question of the command line."""
    kind, shard, *rest = sys.argv[1:]
    url = Environment.load().secret("DATABASE_URL")
    try:
        with refusing():
            journal = await PostgresJournal.open(url.reveal(), shard=int(shard))
        try:
            async for answer in answers(journal, [kind, *rest]):
                _print(answer)
        finally:
            await journal.close()
    except PastRefused as refused:
        _print(refused.refusal)


def _print(answer: Answer) -> None:
    sys.stdout.buffer.write(to_line(answer))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    apart.idle_only()
    process.run(main)
