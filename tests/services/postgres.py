"""A PostgreSQL cluster of the test run's own, one for each xdist worker, made when first asked for."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.services.environment import DATABASE_PORT
from tests.services.process import Process, listens
from tests.services.programs import find

# Quick rather than safe from power cuts; what was committed does survive `stop(crash=True)`.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "timezone": "UTC",
}


class Postgres:
    """A cluster on 127.0.0.1 whose only role is `portal`, without a password; running once made."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._bin = find("postgresql").resolve().parent
        self._user = _system_user()
        self._folder = Path(tempfile.mkdtemp(prefix="portal-postgres-"))
        self._names = (f"app{number}" for number in count(1))
        self._process: Process | None = None
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        subprocess.run(
            [
                *(self._bin / "initdb", "--pgdata", self._data, "--username", "portal", "--auth", "trust"),
                *("--no-locale", "--encoding", "UTF8", "--no-sync"),
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
        )
        self.start()

    def url(self, database: str, *, port: int | None = None) -> str:
        """The database's DATABASE_URL; `port` is a proxy's, where one stands in front."""
        return f"postgres://portal@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, name: str | None = None, *, template: str = "template1") -> str:
        """Make a database, with a name of its own unless given one, and return its URL."""
        name = name or next(self._names)
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with self.connect("postgres") as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def connect(self, database: str) -> psycopg.Connection:
        """A connection of its own, in autocommit mode: to look at what the application has stored."""
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    def connection_count(self, database: str) -> int:
        """How many connections the application holds to this database."""
        with self.connect("postgres") as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [database]).fetchone()
        return int(row[0]) if row else 0

    def backends(self, database: str) -> list[int]:
        """The process ids of the connections that the application holds to this database."""
        statement = "SELECT pid FROM pg_stat_activity WHERE datname = %s ORDER BY pid"
        with self.connect("postgres") as connection:
            return [pid for (pid,) in connection.execute(statement, [database]).fetchall()]

    def terminate(self, database: str) -> int:
        """End every connection that the application holds to this database, and wait until they are gone; how many."""
        statement = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
        with self.connect("postgres") as connection:
            return len(connection.execute(statement, [database]).fetchall())

    def start(self) -> None:
        """Start it again; harmless while it runs."""
        if self._process is not None and self._process.exit_code is None:
            return
        options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        self._process = Process(
            [self._bin / "postgres", "-D", self._data, "-p", str(self.port), *options],
            log=self._folder / "log",
            ready=lambda process: listens(self.port)(process) and self._takes_logins(),
            cwd=self._folder,
            user=self._user,
        )

    def stop(self, *, crash: bool = False) -> None:
        """Cut every connection and end it: in order, or like a crash, whose recovery `start` then runs."""
        if self._process is not None:
            self._process.stop(signal_number=signal.SIGQUIT if crash else signal.SIGINT)

    @contextlib.contextmanager
    def down(self, *, crash: bool = False) -> Iterator[None]:
        """Stopped inside the `with` block, running again after it."""
        self.stop(crash=crash)
        try:
            yield
        finally:
            self.start()

    def close(self) -> None:
        """Stop it for good and remove what it wrote."""
        self.stop(crash=True)
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _takes_logins(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:  # it says "the database system is starting up" for a moment
            return False
        return True


def _system_user() -> str | None:
    """Whom to run as: PostgreSQL refuses root, and nobody but root may choose."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """This worker's PostgreSQL cluster."""
    cluster = Postgres(DATABASE_PORT)
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None, postgres: Postgres) -> None:
    """pytest-django's hook: tests with the `django_db` mark find the database that settings name."""


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """pytest-django's: its database goes with the cluster, whoever still holds a connection to it."""
    return True
