"""The growth model: formulas that hold at their edges, a day and a herd that make sense, a current document."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.growth import Costs, Habits, Limits, Needs

COSTS = Costs.of(growth.PRELIMINARY, growth.PRELIMINARY["idle_streams"], "the test")


@pytest.fixture(scope="module")
def found() -> list[Needs]:
    return [growth.needs(people, COSTS, Habits(), Limits()) for people in growth.PEOPLE]


def test_costs_give_back_what_was_measured() -> None:
    assert COSTS.message_us + COSTS.delivery_us == pytest.approx(growth.PRELIMINARY["cpu_us_per_message"])
    one, five = (growth.PRELIMINARY[f"most_per_second_{tabs}"] for tabs in ("1_tab", "5_tabs"))
    assert 1e6 / one + 4 * COSTS.delivery_us == pytest.approx(5 * 1e6 / five), "four deliveries more"
    assert COSTS.idle_us * growth.PRELIMINARY["idle_streams"] == pytest.approx(1e5), "10 % of a core"


def test_it_reads_what_the_benchmarks_write(tmp_path: Path) -> None:
    medians = {**growth.PRELIMINARY, "memory_kb_many": 31.0}
    told = {"at": "2026-01-02T03:04:05+00:00", "machine": "a machine", "rounds": 3, "scale": {"idle": [1000, 3000]}}
    (tmp_path / "latest.json").write_text(json.dumps({**told, "medians": {"portal": medians}}))
    costs = Costs.read(tmp_path / "latest.json")
    assert costs.stream_kb == 31
    assert costs.idle_us == pytest.approx(10 * 1e4 / 3000)
    assert "2026-01-02" in costs.source
    assert "preliminary" in Costs.read(tmp_path / "none.json").source


def test_a_day_is_the_same_each_time_and_grows_with_the_people() -> None:
    assert growth.day(10_000, Habits()) == growth.day(10_000, Habits())
    few, many = growth.day(20_000, Habits())[0], growth.day(200_000, Habits())[0]
    assert many.streams == pytest.approx(10 * few.streams)
    assert few.people <= 20_000 * 0.72
    assert few.people < few.browsers < few.streams < few.tabs
    nobody = growth.day(10_000, replace(Habits(), come_today=0))[0]
    assert nobody.people == nobody.streams == nobody.openings == 0


def test_what_is_needed_is_enough(found: list[Needs]) -> None:
    for each in found:
        assert each.cores / each.processes <= Limits().core_use
        assert each.peak.streams / each.processes <= Limits().process_streams
        assert each.peak.inboxes <= each.feeds <= 1.2 * each.peak.inboxes, "second browsers only"
        assert each.postgres_transactions <= each.postgres_rows
    assert [each.processes for each in found] == sorted(each.processes for each in found)


def test_only_the_watch_over_memberships_grows_faster_than_the_people(found: list[Needs]) -> None:
    """docs/scale.md says so; when that is cured, it has to say so, too."""
    small, middle, large = found
    for name in ("cores", "memory_gb", "postgres_rows", "redis_messages", "upstream_calls", "nginx_connections"):
        assert getattr(large, name) <= 101 * getattr(small, name), name
    assert middle.upstream_watch_calls > 50 * small.upstream_watch_calls
    assert large.upstream_watch_calls == pytest.approx(large.peak.people / 7), "a call for each person then"


def test_a_herd_comes_back_no_faster_than_it_is_served() -> None:
    alone = growth.herd(10, 1, 0, COSTS)
    assert 1 <= alone.half <= alone.everybody < 2
    crowd = growth.herd(4_000, 1, 0.5, COSTS)
    assert crowd.everybody >= 4_000 * COSTS.opening_us / 1e6 / 0.5
    assert crowd.half <= crowd.most <= crowd.everybody
    assert growth.herd(4_000, 4, 0.5, COSTS).everybody < crowd.everybody / 2
    assert growth.herd(20_000, 1, 0.5, COSTS).gave_up > 0, "five attempts are not enough for everybody then"


def test_the_document_shows_the_last_measurement() -> None:
    """`python -m benchmarks.growth --write` puts it in order."""
    assert growth.main(["--check"]) == 0
    assert "What one costs" in growth.DOCUMENT.read_text()
