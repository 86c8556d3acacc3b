"""The import rules of pyproject.toml catch the imports that they forbid."""

import grimp
import pytest

from scripts.import_rules import OnlyImportedBy, OnlyImports


@pytest.fixture
def graph() -> grimp.ImportGraph:
    graph = grimp.ImportGraph()
    for importer, imported in (
        ("exchange.trading.core.book", "exchange.domain.price"),
        ("exchange.trading.core.book", "exchange.trading.core.model"),
        ("exchange.trading.core.book", "time"),
        ("exchange.trading.service", "pincex.trading.v1.types_pb2"),
        ("exchange.trading.sequencer", "pincex.trading.v1.types_pb2"),
        ("pincex.trading.v1.orders_pb2", "pincex.trading.v1.types_pb2"),
    ):
        graph.add_import(importer=importer, imported=imported)
    return graph


def contract(kind: type, **options: object):
    return kind(name="rule", session_options={}, contract_options=options)


def test_the_core_may_import_the_domain_but_not_a_clock(graph: grimp.ImportGraph) -> None:
    rule = contract(OnlyImports, source="exchange.trading.core", allowed=["exchange.domain"])
    assert rule.find_breaks(graph) == [("exchange.trading.core.book", "time")]
    assert not rule.check(graph, verbose=False).kept


def test_generated_types_may_reach_the_service_but_not_the_sequencer(graph: grimp.ImportGraph) -> None:
    rule = contract(OnlyImportedBy, target="pincex", allowed=["exchange.*.service"])
    assert rule.find_breaks(graph) == [("exchange.trading.sequencer", "pincex.trading.v1.types_pb2")]
