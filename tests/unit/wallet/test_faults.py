"""The faults of the simulated network: by its seed alone."""

from __future__ import annotations

from exchange.wallet.simulated.faults import MAX_LATE_BLOCKS, MAX_REORG_BLOCKS, Faults


def test_without_a_seed_nothing_goes_wrong() -> None:
    faults = Faults(0)
    assert {faults.lateness(number) for number in range(500)} == {(0,)}
    assert not any(faults.reorg_blocks(height) for height in range(500))
    assert not any(faults.unanswered() for _ in range(500))


def test_with_a_seed_the_same_goes_wrong_again() -> None:
    def history(seed: int) -> list[object]:
        faults = Faults(seed)
        return [(faults.lateness(one), faults.reorg_blocks(one), faults.unanswered()) for one in range(500)]

    assert history(7) == history(7)
    assert history(7) != history(8)


def test_reports_come_late_and_twice_and_blocks_are_replaced() -> None:
    faults = Faults(7)
    told = [faults.lateness(number) for number in range(500)]
    assert {len(one) for one in told} == {1, 2}
    assert {late for one in told for late in one} == set(range(MAX_LATE_BLOCKS + 1))
    assert {faults.reorg_blocks(height) for height in range(1_000)} == set(range(MAX_REORG_BLOCKS + 1))
    assert any(faults.unanswered() for _ in range(500))
