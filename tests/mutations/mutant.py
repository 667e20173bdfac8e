"""A deliberate defect: some text of the code replaced by another, and the tests that have to fail then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Edit:
    """In `file`, `text` (which stands there exactly once) becomes `replacement`."""

    file: str
    text: str
    replacement: str

    def apply(self, folder: Path) -> None:
        path = folder / self.file
        path.write_text(path.read_text().replace(self.text, self.replacement))

    def occurrences(self, folder: Path = ROOT) -> int:
        return (folder / self.file).read_text().count(self.text)


@dataclass(frozen=True, slots=True)
class Mutant:
    """`promise` is D1 to D7, or a word for what is promised elsewhere; `tests` are node ids without parameters."""

    name: str
    promise: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


def mutant(name: str, promise: str, file: str, text: str, replacement: str, *tests: str) -> Mutant:
    """A mutant of one edit."""
    return Mutant(name, promise, (Edit(file, text, replacement),), tests)
