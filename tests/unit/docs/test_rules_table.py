"""docs/UPGRADES.md: every version of the rules that this build knows has its row."""

from __future__ import annotations

import pytest

from exchange.trading.core.constants import RULES_VERSION
from tests.unit.docs.tables import document, table

pytestmark = pytest.mark.core


def test_each_version_of_the_rules_is_documented() -> None:
    _, *rows = table(document("docs/UPGRADES.md"), "rules")
    assert [row[0] for row in rows] == [str(version) for version in range(1, RULES_VERSION + 1)]
