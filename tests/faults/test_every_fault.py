"""No fault of the catalogue is forgotten: F1 to F138 of reliability.md are each named by the docstring of a test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
FAULTS = range(1, 139)
_NAMED = re.compile(r"\bF(\d{1,3})\b(?:\s*(?:-|–|to)\s*F(\d{1,3})\b)?")


def _tests() -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield node


def _named(text: str) -> set[int]:
    found = set()
    for first, last in _NAMED.findall(text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.fixture(scope="module")
def shown() -> set[int]:
    """The faults that the docstrings of tests name."""
    found: set[int] = set()
    for test in _tests():
        found |= _named(ast.get_docstring(test) or "")
    return found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda number: f"F{number}")
def test_the_fault_has_a_test(fault: int, shown: set[int]) -> None:
    assert fault in shown


def test_no_test_names_a_fault_that_does_not_exist(shown: set[int]) -> None:
    assert not shown - set(FAULTS)
