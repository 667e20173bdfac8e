"""The original's handler on plain Node: `fetch` upstream, pipe the body to the browser (node_proxy.mjs)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.peer import Peer

_SCRIPT = Path(__file__).with_name("node_proxy.mjs")


class Node(Peer):
    name = "node"

    def argv(self) -> Sequence[str | Path]:
        node = shutil.which("node")
        if node is None:
            raise RuntimeError("node was not found: leave it out with --peers")
        return [node, _SCRIPT, str(self.port), str(self.upstream_port)]
