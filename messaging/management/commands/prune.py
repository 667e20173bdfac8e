"""`manage.py prune`: delete what retention no longer needs. No count changes by it; run it daily."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand

from messaging import retention


class Command(BaseCommand):
    help = (
        "Delete receipts of answers that were read long ago, old requests to send and ended sessions. "
        "Unread counts stay as they are; it may run while people work."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--days", type=_days, default=30, help="keep what was read in the last so many days (30)")
        parser.add_argument("--dry-run", action="store_true", help="only say how much it would be")

    def handle(self, *args: Any, **options: Any) -> None:
        is_dry_run = options["dry_run"]
        pruned = retention.prune(older_than=timedelta(days=options["days"]), is_dry_run=is_dry_run)
        if not pruned:
            self.stdout.write("Nothing to delete.")
            return
        self.stdout.write("Would delete:" if is_dry_run else "Deleted:")
        self.stdout.write(f"  {pruned.receipts} receipts of answers read more than {options['days']} days ago")
        self.stdout.write(f"    ({pruned.topics} topics remember them by their floor)")
        self.stdout.write(f"  {pruned.dispatches} requests to send, remembered for a day")
        self.stdout.write(f"  {pruned.sessions} ended sessions")


def _days(text: str) -> int:
    try:
        days = int(text)
    except ValueError as problem:
        raise ArgumentTypeError("must be a whole number") from problem
    if not 1 <= days <= 36_500:
        raise ArgumentTypeError("must be from 1 to 36500")
    return days
