"""nginx as deploy/nginx.conf has it: only names, addresses, folders and what a test says are put in."""

from __future__ import annotations

import datetime
import ipaddress
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.services.ports import free_port
from tests.services.process import ROOT, Process, listens
from tests.services.programs import find

DEPLOY = ROOT / "deploy"
NAME = "localhost"


class Certificate:
    """A certificate that this machine alone trusts, for `NAME`, in files as nginx wants them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.folder = folder
        pem = serialization.Encoding.PEM
        (folder / "fullchain.pem").write_bytes(made.public_bytes(pem))
        (folder / "privkey.pem").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        self.trust = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))


def configure(folder: Path, certificate: Certificate, changes: Mapping[str, str], *, http: int, https: int) -> Path:
    """Write deploy/nginx.conf into a folder, fit for this machine; every place that is changed has to be there."""
    (folder / "log").mkdir()
    places = {
        "pid /run/nginx.pid;": f"pid {folder}/nginx.pid;",
        "/var/log/nginx/": f"{folder}/log/",
        "/etc/nginx/tls/": f"{certificate.folder}/",
        "include portal-processes.conf;": f"include {folder}/portal-processes.conf;",
        "listen 80 ": f"listen 127.0.0.1:{http} ",
        "listen 443 ": f"listen 127.0.0.1:{https} ",
        "portal.example": NAME,
        "\nhttp {\n": "\nhttp {\n"
        + "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        + f"    client_body_temp_path {folder}/body;\n",
        **changes,
    }
    text = (DEPLOY / "nginx.conf").read_text()
    for found, wanted in places.items():
        assert found in text, found
        text = text.replace(found, wanted)
    if os.geteuid() == 0:  # nginx's own user may not look into this folder
        text = "user root;\n" + text
    config = folder / "nginx.conf"
    config.write_text(text)
    return config


def processes_at(*ports: int) -> str:
    """A list of processes like deploy/processes.conf."""
    return "".join(f"server 127.0.0.1:{port} max_fails=3 fail_timeout=5s;\n" for port in ports)


def check(config: Path) -> str:
    """What `nginx -t` says; raises AssertionError where it doesn't like the file."""
    argv: list[str | Path] = [
        find("nginx"),
        "-t",
        "-q",
        "-p",
        config.parent,
        "-e",
        config.parent / "start.log",
        "-c",
        config,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stderr


class Front:
    """nginx, running: HTTPS at `url` and plain HTTP at `http_port`; passes on to the processes at these ports."""

    def __init__(
        self, folder: Path, *ports: int, certificate: Certificate, changes: Mapping[str, str] | None = None
    ) -> None:
        self.http_port, self.port = free_port(), free_port()
        self.folder = folder
        self.trust = certificate.trust
        folder.mkdir()
        (folder / "portal-processes.conf").write_text(processes_at(*ports))
        config = configure(folder, certificate, changes or {}, http=self.http_port, https=self.port)
        argv: list[str | Path] = [find("nginx"), "-p", folder, "-e", folder / "start.log", "-c", config]
        self._process = Process([*argv, "-g", "daemon off;"], log=folder / "output", ready=listens(self.port))

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"https://{NAME}:{self.port}"

    @property
    def pid(self) -> int:
        """The master's."""
        return self._process.pid

    def reload(self) -> None:
        """`nginx -s reload`."""
        os.kill(self.pid, signal.SIGHUP)

    def access_log(self) -> list[str]:
        return (self.folder / "log/access.log").read_text().splitlines()

    def stop(self) -> None:
        self._process.stop()


class Fronts(Protocol):
    """How tests start one: `front(port, another_port, changes={"rate=400r/s": "rate=5r/s"})`."""

    def __call__(self, *ports: int, changes: Mapping[str, str] | None = None) -> Front: ...


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls") / "live")


@pytest.fixture
def front(tmp_path: Path, certificate: Certificate) -> Iterator[Fronts]:
    """Starts nginx and ends it with the test."""
    running: list[Front] = []

    def start(*ports: int, changes: Mapping[str, str] | None = None) -> Front:
        running.append(Front(tmp_path / f"nginx-{len(running)}", *ports, certificate=certificate, changes=changes))
        return running[-1]

    yield start
    for each in running:
        each.stop()
