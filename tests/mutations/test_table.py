"""The table of mutants can't rot: what it replaces is there, and so are the tests and the words that it relies on."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.mutations.mutant import ROOT, Mutant
from tests.mutations.table import MUTANTS

PROMISES = [f"D{number}" for number in range(1, 8)]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_text_that_stands_in_the_code_once(mutant: Mutant) -> None:
    for edit in mutant.edits:
        assert edit.occurrences() == 1, edit.text
        assert edit.replacement != edit.text


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_must_fail_exist(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert name in _functions(file), test


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_is_broken_in_more_than_one_way(promise: str) -> None:
    assert len([mutant for mutant in MUTANTS if mutant.promise == promise]) >= 2


@pytest.mark.parametrize("promise", PROMISES)
def test_the_document_names_the_tests_of_each_promise(promise: str) -> None:
    """docs/delivery.md says which test would fail; those are the table's."""
    section = (ROOT / "docs" / "delivery.md").read_text().partition("## Which test would fail\n")[2]
    (paragraph,) = re.findall(rf"^- \*\*{promise}\*\*(.*?)(?=^- \*\*|^#|\Z)", section, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`(test_\w+)`", paragraph))
    assert named == {test.partition("::")[2] for m in MUTANTS if m.promise == promise for test in m.tests}


def test_names_are_told_apart() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)


@cache
def _functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
