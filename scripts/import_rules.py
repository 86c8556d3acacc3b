"""Two kinds of import-linter contracts that pyproject.toml uses beside the usual ones.

`only_imports`: the modules of `source` import nothing but themselves and what `allowed` names.
`only_imported_by`: nobody outside `target` imports it but the modules that match `allowed`.
Both look at direct imports: what an allowed module imports is that module's affair.
"""

from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output
from importlinter.domain.imports import ModuleExpression


class _DirectImports(Contract):
    """A contract whose breaks are a list of (importer, imported) pairs."""

    def find_breaks(self, graph: ImportGraph) -> list[tuple[str, str]]:
        """Return the imports that the contract forbids."""
        raise NotImplementedError

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 - its signature
        """Collect the breaks; import-linter calls this."""
        del verbose
        breaks = sorted(self.find_breaks(graph))
        return ContractCheck(kept=not breaks, metadata={"breaks": breaks})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each break."""
        for importer, imported in check.metadata["breaks"]:
            output.print_error(f"{importer} must not import {imported}", bold=False)


class OnlyImports(_DirectImports):
    """The modules of a package import nothing but what is allowed; a missing package keeps the contract."""

    source = fields.StringField()
    allowed = fields.ListField(subfield=fields.StringField())

    def find_breaks(self, graph: ImportGraph) -> list[tuple[str, str]]:
        """Return imports that leave the package for a place that is not allowed."""
        source = cast("str", self.source)
        allowed = [source, *cast("list[str]", self.allowed)]
        return [
            (importer, imported)
            for importer in _inside(graph, source)
            for imported in graph.find_modules_directly_imported_by(importer)
            if not any(_is_in(imported, package) for package in allowed)
        ]


class OnlyImportedBy(_DirectImports):
    """A package is imported by the named modules only."""

    target = fields.StringField()
    allowed = fields.ListField(subfield=fields.ModuleExpressionField())

    def find_breaks(self, graph: ImportGraph) -> list[tuple[str, str]]:
        """Return imports of the package by modules that are neither in it nor named."""
        target = cast("str", self.target)
        expressions = cast("list[ModuleExpression]", self.allowed)
        named = {module for expression in expressions for module in _matching(graph, expression)}
        return [
            (importer, imported)
            for imported in _inside(graph, target)
            for importer in graph.find_modules_that_directly_import(imported)
            if not _is_in(importer, target) and importer not in named
        ]


def _inside(graph: ImportGraph, package: str) -> list[str]:
    return [module for module in graph.modules if _is_in(module, package)]


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _matching(graph: ImportGraph, expression: ModuleExpression) -> set[str]:
    if expression.has_wildcard_expression():
        return graph.find_matching_modules(expression.expression)
    return {expression.expression}
