"""What a run of chaos did and found, for people."""

from __future__ import annotations

from collections import defaultdict

from tests.chaos.monkey import Outcome

TOGETHER = "of two:"


def share(ordered: list[float], of_all: float) -> float:
    """The value below which that share of the sorted values lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * of_all))]


def waits_by_kind(outcome: Outcome) -> dict[str, list[float]]:
    """The longest wait of any caller at each fault, sorted, in seconds. Where two struck together nobody knows whose wait it
    was.
    """
    waits: defaultdict[str, list[float]] = defaultdict(list)
    for one in outcome.struck:
        waits[f"{TOGETHER} {one.kind}" if one.paired else one.kind].append(one.longest_wait_s)
    return {kind: sorted(seconds) for kind, seconds in sorted(waits.items())}


def table(outcome: Outcome) -> list[str]:
    """One line a kind of fault: how often, and how long callers waited."""
    lines = [f"{'fault':27} times     p50     p99     max   longest wait of any caller, s"]
    for kind, waits in waits_by_kind(outcome).items():
        lines.append(f"{kind:27} {len(waits):5} {share(waits, 0.5):7.2f} {share(waits, 0.99):7.2f} {waits[-1]:7.2f}")
    return lines


def findings(outcome: Outcome) -> list[str]:
    """What was asked and what held."""
    proved = outcome.proved
    assert proved is not None
    feeds = ", ".join(
        f"{name} {one.updates:,} ({one.reconnects} reconnects, {one.resets} gaps reported)"
        for name, one in outcome.streams.items()
    )
    replay = "the replay from the first frame gives the same state, answers and balances; money is conserved"
    return [
        f"commands: {outcome.commands:,} asked, each answered, none with an error; lost 0, applied twice 0",
        f"sessions: {outcome.reconnects} attached again, {outcome.resent} commands sent again",
        f"feeds: {feeds}; unreported gaps 0, wrong books 0",
        f"journal: {proved.frames:,} frames under {proved.epochs} epochs, {proved.trades:,} trades; {replay}",
        f"replicas: {outcome.replicas} at sequence {outcome.sequence}, state {outcome.state_hash[:16]}: identical",
    ]


def text(outcome: Outcome) -> str:
    """All of it."""
    return "\n".join(["", *table(outcome), "", *findings(outcome), "every promise was kept"])
