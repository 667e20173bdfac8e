"""Entries in the order they are read: days between them, consecutive steps folded into one group."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from conversations.entries import Entry

WORKING_FOR: Final = timedelta(minutes=2)
"""An agent whose last step is older than this is no longer shown as working."""


@dataclass(frozen=True, slots=True)
class Day:
    """A date line. The date is UTC's; the page's script moves it to where the reader's day changes."""

    date: date
    is_day: bool = True
    is_group: bool = False


@dataclass(frozen=True, slots=True)
class StepGroup:
    """Consecutive steps; open while the agent is at it."""

    steps: list[Entry]
    is_working: bool
    is_group: bool = True
    is_day: bool = False

    @property
    def first(self) -> Entry:
        return self.steps[0]

    @property
    def is_single(self) -> bool:
        return len(self.steps) == 1


type Item = Entry | StepGroup | Day


def arrange(entries: Iterable[Entry], *, now: datetime) -> list[Item]:
    """Entries, oldest first, as the page shows them."""
    items: list[Item] = []
    today: date | None = None
    steps: list[Entry] = []
    for entry in entries:
        if entry.at.date() != today:
            today, steps = entry.at.date(), []
            items.append(Day(today))
        if not entry.is_step:
            steps = []
            items.append(entry)
        elif steps:
            steps.append(entry)
        else:
            steps = [entry]
            items.append(StepGroup(steps, is_working=False))
    if steps and now - steps[-1].at < WORKING_FOR:
        items[-1] = StepGroup(steps, is_working=True)
    return items


def live(entry: Entry) -> Item:
    """One entry as it arrives: a step comes as a group of one, which the page joins to its neighbour."""
    return StepGroup([entry], is_working=True) if entry.is_step else entry
