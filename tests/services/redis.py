"""A Redis server of the test run's own, one for each xdist worker, made when first asked for."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_client
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.services.ports import free_port
from tests.services.process import Process, prints
from tests.services.programs import find


class Redis:
    """A server on 127.0.0.1 that keeps nothing over a restart; running once made."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._folder = Path(tempfile.mkdtemp(prefix="portal-redis-"))
        self._process: Process | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its REDIS_URL."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The REDIS_URL through a proxy that listens at this port."""
        return f"redis://127.0.0.1:{port}/0"

    def client(self) -> redis_client.Redis:
        """A connection to look inside with, which tries once; the caller closes it."""
        return redis_client.Redis(host="127.0.0.1", port=self.port, retry=Retry(NoBackoff(), 0))

    def flush(self) -> None:
        """Forget everything, so that one test doesn't hear another's."""
        with self.client() as client:
            client.flushall()

    def start(self) -> None:
        """Start it again, empty; harmless while it runs."""
        if self._process is not None and self._process.exit_code is None:
            return
        self._process = Process(
            [
                *(find("redis"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            ],
            log=self._folder / "log",
            ready=prints(r"Ready to accept connections"),
        )

    def stop(self, *, crash: bool = False) -> None:
        """Cut every connection and end it: in order, or like a crash."""
        if self._process is None:
            return
        if crash:
            self._process.kill()
        else:
            self._process.stop()

    @contextlib.contextmanager
    def down(self, *, crash: bool = False) -> Iterator[None]:
        """Stopped inside the `with` block, running again (and empty) after it."""
        self.stop(crash=crash)
        try:
            yield
        finally:
            self.start()

    def close(self) -> None:
        """Stop it for good and remove what it wrote."""
        self.stop(crash=True)
        shutil.rmtree(self._folder)


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """This worker's Redis server; a test that minds what others left in it calls `flush` first."""
    server = Redis(free_port())
    yield server
    server.close()
