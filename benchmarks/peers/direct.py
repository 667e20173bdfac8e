"""No proxy at all: what the harness itself can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.peer import Peer


class Direct(Peer):
    name = "direct"
    is_process = False

    def __init__(self, folder: Path, upstream_port: int) -> None:
        super().__init__(folder, upstream_port)
        self.port = upstream_port

    def argv(self) -> Sequence[str | Path]:
        return []

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return
