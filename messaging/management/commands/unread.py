"""`manage.py unread`: unread state as a table or as JSON; clear it, or compare it with upstream."""

from __future__ import annotations

import asyncio
import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from messaging import errors, oversight
from messaging.runtime import short_lived


class Command(BaseCommand):
    help = "Show unread answers by inbox and topic; `clear` marks them read, `resync` counts again from upstream."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", nargs="?", choices=("show", "clear", "resync"), default="show")
        parser.add_argument("--tenant")
        parser.add_argument("--participant")
        parser.add_argument("--agent")
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = oversight.Filter(options["tenant"], options["participant"], options["agent"])
        if options["action"] == "clear":
            count = asyncio.run(_clear(wanted))
            self.stdout.write(f"{count} marked as read.")
            return
        if options["action"] == "resync":
            for line in asyncio.run(_resync(wanted)):
                self.stdout.write(line)
        rows = oversight.table(wanted)
        if options["json"]:
            self.stdout.write(json.dumps(rows, ensure_ascii=False))
        else:
            self._print(rows)

    def _print(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            self.stdout.write("Nothing is unread.")
            return
        heads = list(rows[0])
        cells = [heads, *[[str(row[head] if row[head] is not None else "General") for head in heads] for row in rows]]
        widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
        for line in cells:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


async def _clear(wanted: oversight.Filter) -> int:
    async with short_lived() as runtime:
        return await oversight.clear(runtime, wanted)


async def _resync(wanted: oversight.Filter) -> list[str]:
    lines = []
    async with short_lived() as runtime:
        for inbox in await runtime.ledger.run(oversight.inboxes, wanted):
            try:
                found = await oversight.resync(runtime, inbox)
            except errors.MessagingError as problem:
                lines.append(f"{inbox.address.participant_id}: {problem.sentence} ({problem.detail})")
            else:
                lines.append(f"{inbox.address.participant_id}: {found} unread after comparing with upstream")
    return lines
