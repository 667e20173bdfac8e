"""The benchmarks run: small, so that the numbers mean little, but every part of the harness is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import asked
from benchmarks.soak import growth_of
from tests.services.process import ROOT

pytestmark = pytest.mark.timeout(300)
_SECONDS = 280

type Medians = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run has written that went well."""
    folder = tmp_path_factory.mktemp("benchmarks")
    size = ("--tiny", "--peers", "nginx,portal,several", "--only", "latency,restart,pages")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *size, "--output", folder, "--logs", folder / "logs"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def medians(folder: Path) -> Medians:
    found: Medians = json.loads((folder / "latest.json").read_text())["medians"]
    return found


@pytest.mark.parametrize("peer", ["nginx", "portal", "several"])
def test_it_measures_every_peer(medians: Medians, peer: str) -> None:
    assert medians[peer]["latency_lost"] == 0
    assert 0 < medians[peer]["latency_p50_ms"] <= medians[peer]["latency_p99_ms"]
    assert medians[peer]["restart_not_back"] == 0
    assert medians[peer]["restart_seconds"] >= medians[peer]["restart_down_seconds"] > 0


def test_it_measures_what_a_page_costs(medians: Medians) -> None:
    assert medians["portal"]["page_cpu_ms"] > 0


@pytest.mark.parametrize("peer", ["portal", "several"])
def test_the_portal_loses_nothing_over_a_restart(medians: Medians, peer: str) -> None:
    """Messages go on being written while it is away; the proxy beside it shows that there was something to lose."""
    assert medians["nginx"]["restart_lost"] > 0
    assert medians[peer]["restart_lost"] == 0
    assert medians[peer]["restart_doubled"] == 0


def test_it_writes_a_table_and_a_picture(folder: Path) -> None:
    told = (folder / "latest.md").read_text()
    assert "messages lost over the restart" in told
    assert "| messages lost over it: none | 0 |  | met |" in told
    picture = ElementTree.fromstring((folder / "latest.svg").read_text())
    assert picture.tag.endswith("svg")
    assert any("ours" in each.get("class", "") for each in picture.iter())


def test_it_says_what_is_missed() -> None:
    told = list(asked.answers({"latency_p99_ms": 0.3, "memory_kb_many": 28.0}, {"latency_p99_ms": 0.2}))
    assert [is_met for *_, is_met in told] == [False, True, False], "what Node didn't do is not met either"


def test_it_sees_memory_that_grows() -> None:
    assert growth_of([100.0, 101.0] * 20) < 0.01
    assert growth_of([100.0 + number / 2 for number in range(40)]) > 0.05
