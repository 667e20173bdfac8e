"""`manage.py demo`: the whole world on one machine, with nothing to configure."""

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from demo import environment, people
from demo.children import Provider, StandIn

_READY_SECONDS = 40
_WELCOME = """
  Talk with agents at   {url}

  Sign in as            {people}   (no password: press the name)
  Administrator         {url}admin/   admin / admin

  To watch the page cope with an outage, type
      off + Enter       the Xians server goes away
      on + Enter        it comes back, with everything that was said
  Ctrl-C ends all of it.
"""


class Command(BaseCommand):
    help = "Run the portal with a stand-in Xians server, talkative agents and an OIDC provider, on 127.0.0.1."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--fresh", action="store_true", help="forget earlier demos first")

    def handle(self, *args: Any, **options: Any) -> None:
        if _is_taken(options["port"]):
            raise CommandError(f"Port {options['port']} is in use. Try: manage.py demo --port {options['port'] + 1}")
        if options["fresh"]:
            _forget()
        signal.signal(signal.SIGTERM, _interrupt)
        port = options["port"]
        upstream = StandIn(world="demo", state=environment.FOLDER / "xians.jsonl")
        # The same issuer in every run, as far as its port is free: accounts belong to it.
        provider = Provider(port=0 if _is_taken(port + 1) else port + 1)
        try:
            with upstream, provider:
                self._run(upstream, provider, port)
        except KeyboardInterrupt:
            self.stdout.write("\nGoodbye.")

    def _run(self, upstream: StandIn, provider: Provider, port: int) -> None:
        self.stdout.write("Setting the stage ...")
        call_command("migrate", verbosity=0)
        _make_administrator()
        url = f"http://127.0.0.1:{port}/"
        app = _start_app(upstream, provider, port)
        try:
            _wait_for(f"{url}healthz", app)
            names = " or ".join(f"{one.name.split()[0]} ({one.email})" for one in people.everyone())
            self.stdout.write(_WELCOME.format(url=url, people=names))
            self.stdout.flush()
            self._obey(upstream, app)
        finally:
            _end(app)

    def _obey(self, upstream: StandIn, app: "subprocess.Popen[bytes]") -> None:
        with selectors.DefaultSelector() as selector:
            with contextlib.suppress(ValueError, PermissionError):  # nothing to read from: run until told to stop
                selector.register(sys.stdin, selectors.EVENT_READ)
            while app.poll() is None:
                if not selector.get_map():
                    time.sleep(0.5)
                elif selector.select(0.5):
                    line = sys.stdin.readline()
                    if not line:
                        selector.unregister(sys.stdin)
                    self._switch(upstream, line.strip().lower())
        raise CommandError("The application has ended; its words are above.")

    def _switch(self, upstream: StandIn, word: str) -> None:
        if word == "off" and upstream.process is not None:
            upstream.kill()
            self.stdout.write("The Xians server is gone. `on` brings it back.")
        elif word == "on" and upstream.process is None:
            upstream.start()
            self.stdout.write("The Xians server is back.")
        elif word:
            self.stdout.write("Type off or on, then Enter. Ctrl-C ends the demo.")


def _start_app(upstream: StandIn, provider: Provider, port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "uvicorn", "config.asgi:application", "--host", "127.0.0.1"]
    return subprocess.Popen(
        [*command, "--port", str(port), "--log-level", "warning", "--timeout-graceful-shutdown", "10"],
        env={**os.environ, "XIANS_SERVER_URL": upstream.url, "OIDC_ISSUER_URL": provider.issuer},
        cwd=environment.FOLDER.parent.parent,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is ours to pass on, once
    )


def _wait_for(url: str, app: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and app.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise CommandError("The application did not start; its words are above.")


def _end(app: "subprocess.Popen[bytes]") -> None:
    app.terminate()
    try:
        app.wait(12)
    except subprocess.TimeoutExpired:
        app.kill()
        app.wait()


def _make_administrator() -> None:
    if not User.objects.filter(username="admin").exists():
        User.objects.create_superuser("admin", "", "admin")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _forget() -> None:
    for path in environment.FOLDER.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    environment.prepare()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
