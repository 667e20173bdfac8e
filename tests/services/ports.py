"""Free TCP ports on 127.0.0.1 for servers that are told theirs before they start."""

import os
import socket

# Below every system's ephemeral range, so that no outgoing connection takes a port that is promised here,
# and a slice for each xdist worker, so that two workers never promise the same one.
_FIRST, _SLICE, _WORKERS = 18000, 850, 16
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_next = 0


def free_port() -> int:
    """Return a port that nobody listens on; it is not given out again until the slice is used up."""
    global _next
    base = _FIRST + _worker * _SLICE
    start = os.getpid() * 7  # a run that follows another doesn't meet its sockets in TIME_WAIT
    for _ in range(_SLICE):
        port = base + (start + _next) % _SLICE
        _next += 1
        if _is_free(port):
            return port
    raise RuntimeError(f"no free port between {base} and {base + _SLICE - 1}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
