"""What is installed is what was locked, byte for byte."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.services.process import ROOT

FILES = ("requirements.txt", "requirements-dev.txt")
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?: ;[^\\]*)?(?P<rest>.*)$", re.DOTALL)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def _entries(file: str) -> list[str]:
    text = (ROOT / file).read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines))


def _pins(file: str) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for entry in _entries(file):
        pin = _PIN.match(entry)
        assert pin, entry.splitlines()[0]
        found.setdefault(canonicalize_name(pin["name"]), []).append(Version(pin["version"]))
    return found


def _wanted(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = list(project["dependencies"])
    for extra in extras:
        named += project["optional-dependencies"][extra]
    return [Requirement(line) for line in named]


@pytest.mark.parametrize("file", FILES)
def test_every_dependency_is_pinned_with_its_hashes(file: str) -> None:
    """F137: an exact version and the digests of its files, so that nobody can slip in another one."""
    for entry in _entries(file):
        assert _PIN.match(entry), entry.splitlines()[0]
        assert _HASH.search(entry), entry.splitlines()[0]
    assert "://" not in (ROOT / file).read_text()


@pytest.mark.parametrize(("file", "extras"), [(FILES[0], ("demo",)), (FILES[1], ("demo", "dev"))])
def test_what_is_pinned_is_what_is_asked_for(file: str, extras: tuple[str, ...]) -> None:
    """F137: each range of pyproject.toml holds the version that is locked, so no hole stays open by a stale lock."""
    pins = _pins(file)
    for wanted in _wanted(*extras):
        versions = pins[canonicalize_name(wanted.name)]
        assert all(wanted.specifier.contains(version, prereleases=True) for version in versions), wanted


def test_the_application_is_the_same_with_and_without_the_tools() -> None:
    """F137: what is tested is what is deployed."""
    tested = _pins(FILES[1])
    for name, versions in _pins(FILES[0]).items():
        assert tested[name] == versions, name
