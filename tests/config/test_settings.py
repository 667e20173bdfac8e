"""A wrong or missing setting stops the start with one sentence that names it; `.env.example` tells the truth."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.services.process import ROOT

REQUIRED = {
    "DJANGO_SECRET_KEY": "Zx81-canary-secret-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789",
    "DJANGO_ALLOWED_HOSTS": "portal.example",
    "XIANS_SERVER_URL": "https://xians.example",
    "OIDC_ISSUER_URL": "https://login.example/realm",
    "OIDC_CLIENT_ID": "portal",
    "OIDC_CLIENT_SECRET": "canary-client-secret",
}
SOURCES = ("config/settings.py",)

WRONG: list[tuple[str, str]] = [
    *((name, "") for name in REQUIRED),
    ("DJANGO_DEBUG", "maybe"),
    ("DJANGO_PLAIN_HTTP", "2"),
    ("DJANGO_LOG_LEVEL", "loud"),
    ("DJANGO_CSRF_TRUSTED_ORIGINS", "portal.example"),
    ("DATABASE_URL", "mongodb://canary@db/x"),
    ("DATABASE_URL", "db.sqlite3"),
    ("DATABASE_URL", "postgres://portal:canary@db:port/x"),
    ("DATABASE_TIMEOUT_SECONDS", "0"),
    ("REDIS_URL", "localhost:6379"),
    ("REDIS_URL", "redis://[canary"),
    ("XIANS_SERVER_URL", "xians.example"),
    ("XIANS_SERVER_URL", "ftp://xians.example"),
    ("XIANS_SERVER_URL", "http://[::1"),
    ("XIANS_CONNECT_TIMEOUT", "soon"),
    ("XIANS_CONNECT_TIMEOUT", "0"),
    ("XIANS_READ_TIMEOUT", "nan"),
    ("XIANS_HEARTBEAT_SECONDS", "0"),
    ("XIANS_HEARTBEAT_SECONDS", "1.5"),
    ("XIANS_FEED_GRACE_SECONDS", "-1"),
    ("XIANS_TENANTS_CACHE_SECONDS", "x"),
    ("OIDC_ISSUER_URL", "login.example"),
    ("OIDC_SIGN_ALGORITHM", "none"),
    ("STREAM_MAX_PER_PARTICIPANT", "0"),
    ("STREAM_MAX_PER_PROCESS", "0"),
]


def start(code: list[str], env: Mapping[str, str], folder: Path) -> subprocess.Popen[str]:
    """Python with these settings and no others."""
    everything = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "DJANGO_SETTINGS_MODULE": "config.settings"}
    everything |= {"DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}", **REQUIRED, **env}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *code], env=everything, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    )


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={value}" for name, value in WRONG])
def test_it_stops_the_start_with_a_sentence_that_names(name: str, value: str, tmp_path: Path) -> None:
    check = start(["manage.py", "check"], {name: value}, tmp_path)
    serve = start(["-c", "import config.asgi"], {name: value}, tmp_path)
    for child in (check, serve):
        _, said = child.communicate(timeout=60)
        assert child.returncode == 1, said
        assert "Traceback" not in said
        assert "canary" not in said
        (sentence,) = [line for line in said.splitlines() if name in line]
        assert sentence.endswith(".")


def test_it_starts_with_what_is_required_and_nothing_else(tmp_path: Path) -> None:
    check = start(["manage.py", "check"], {}, tmp_path)
    serve = start(["-W", "error", "-c", "import config.asgi"], {}, tmp_path)
    for child in (check, serve):
        _, said = child.communicate(timeout=60)
        assert child.returncode == 0, said


def test_it_has_nothing_to_complain_about_before_a_deployment(tmp_path: Path) -> None:
    child = start(["manage.py", "check", "--deploy", "--fail-level", "WARNING"], {}, tmp_path)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 0, said


def test_development_needs_no_secret_key_and_no_hosts(tmp_path: Path) -> None:
    bare = {"DJANGO_DEBUG": "1", "DJANGO_SECRET_KEY": "", "DJANGO_ALLOWED_HOSTS": ""}
    child = start(["manage.py", "check"], bare, tmp_path)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 0, said


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_example_lists_every_variable_that_is_read() -> None:
    read = {
        name for source in SOURCES for name in re.findall(r'env\.\w+\(\s*"([A-Z][A-Z_]+)"', (ROOT / source).read_text())
    }
    assert len(read) > 15
    assert read == set(example())


def test_the_example_gives_the_defaults(tmp_path: Path) -> None:
    """Loading it changes nothing but what it leaves empty to be filled in."""
    told = {name: value for name, value in example().items() if name not in REQUIRED}
    empty = dict.fromkeys(told, "")
    with_example, without = [_settings(env, tmp_path) for env in (told, empty)]
    assert with_example == without


def _settings(env: dict[str, str], folder: Path) -> dict[str, Any]:
    code = (
        "import json; from config import settings as s;"
        "s.DATABASES['default']['NAME'] = str(s.Path(s.DATABASES['default']['NAME']).resolve());"
        "print(json.dumps({n: str(getattr(s, n)) for n in dir(s) if n.isupper() and n != 'DATABASE_URL'}))"
    )
    child = start(["-c", code], env, folder)
    said, complaint = child.communicate(timeout=60)
    assert child.returncode == 0, complaint
    settings: dict[str, Any] = json.loads(said)
    return settings
