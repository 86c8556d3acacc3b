"""The SQL that the source runbooks print: every statement, found in their text."""

from __future__ import annotations

import re
from dataclasses import dataclass

# `psql -U role -d database -c "..."`, on one line or several.
_PRINTED = re.compile(r'psql -U (?P<role>\w+) -d (?P<database>\w+) -c "(?P<sql>.*?)"$', re.MULTILINE | re.DOTALL)
# One that was not found by the form above is still counted by this.
_ANY = re.compile(r"psql .* -c\b")
_ASSIGNED = re.compile(r'^\$(\w+) = "([^"]*)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PrintedSql:
    """A statement as it stands in a runbook; `line` is where it begins."""

    line: int
    role: str
    database: str
    sql: str

    @property
    def name(self) -> str:
        """For a test's id."""
        word = re.search(r"(?:FROM|DELETE FROM) (?:pg_catalog\.)?(\w+)", self.sql)
        return f"line {self.line}, {word[1] if word else self.sql.strip()}"


def printed_sql(runbook: str) -> list[PrintedSql]:
    """All statements, in their order; variables of the shell that the runbook sets are put in.

    Raises ValueError where one is written in a form that this does not know.
    """
    values = dict(_ASSIGNED.findall(runbook))
    found = []
    for match in _PRINTED.finditer(runbook):
        sql = re.sub(r"\$(\w+)", lambda name: values.get(name[1], name[0]), match["sql"])
        line = runbook.count("\n", 0, match.start()) + 1
        found.append(PrintedSql(line, match["role"], match["database"], sql))
    if len(found) != len(_ANY.findall(runbook)):
        raise ValueError(f"{len(_ANY.findall(runbook))} statements, {len(found)} of them in a known form")
    return found
