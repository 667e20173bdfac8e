"""The files in deploy/ agree with each other and with the settings, and are what a careful operator wants."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.front import DEPLOY
from tests.deploy.layout import example, unit
from tests.services.app import environment
from tests.services.process import ROOT

type Service = dict[str, Any]

_DRAIN_SECONDS = 8 + 10  # streams, then requests
_SECRETS = re.compile(r"(sk-Xnai-\w{8}|BEGIN [A-Z ]*PRIVATE KEY|(?:PASSWORD|SECRET|API_KEY)\s*[=:]\s*[\"']?\w{4})")
UNITS = ("portal@.service", "portal-prune.service")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return read


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Service]:
    found: dict[str, Service] = compose["services"]
    return found


@pytest.fixture(scope="module")
def portals(services: dict[str, Service]) -> dict[str, Service]:
    return {name: service for name, service in services.items() if name.startswith("portal-")}


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined and comments left out."""
    text = "\n".join(line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def last(instruction: str) -> str:
    return [arguments for name, arguments in dockerfile() if name == instruction][-1]


# -- the image ------------------------------------------------------------------------------------------------


def test_the_image_is_built_in_two_stages_from_what_was_locked() -> None:
    """F137: with hashes, without anything that isn't pinned, and without a compiler in what runs."""
    stages = [arguments for name, arguments in dockerfile() if name == "FROM"]
    assert len(stages) == 2
    assert all(re.match(r"python:3\.\d+-\S+", stage) for stage in stages), "a version, never `latest`"
    installs = [part for name, each in dockerfile() if name == "RUN" for part in each.split("&&") if "install" in part]
    assert len(installs) == 1
    for wanted in ("--require-hashes", "--no-deps", "--only-binary :all:", "--requirement requirements.txt"):
        assert wanted in installs[0]
    assert "collectstatic" in str(dockerfile())
    assert "migrate" not in str(dockerfile()), "a process that starts must not change the database"


def test_the_image_runs_as_nobody_and_says_how_it_is() -> None:
    assert last("USER") == "10001:10001"
    order = [name for name, _ in dockerfile()]
    assert order.index("USER") < order.index("CMD")
    assert "--start-period" in last("HEALTHCHECK")
    assert "deploy/healthcheck.py" in last("HEALTHCHECK")
    assert "/healthz" in last("HEALTHCHECK")
    assert json.loads(last("CMD"))[0] == "uvicorn", "no shell: signals reach the server itself"
    assert last("STOPSIGNAL") == "SIGTERM"


def test_only_what_runs_goes_into_the_image() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    taken = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert taken == packages | {"manage.py", "requirements.txt", "static", "templates", "deploy/healthcheck.py"}
    assert all((ROOT / each).exists() for each in taken)


def test_no_file_holds_a_secret() -> None:
    for path in [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".pyc"]:
        assert not _SECRETS.findall(path.read_text()), path


def test_collected_static_files_are_named_by_their_content(tmp_path: Path) -> None:
    """As the image does it: the manifest is there, and every file has a name for ever and a small sister."""
    code = (
        "import sys; sys.argv = ['manage.py', 'collectstatic', '--noinput', '--verbosity=0'];"
        f"from django.conf import settings; settings.STATIC_ROOT = {str(tmp_path)!r};"
        "from django.core.management import execute_from_command_line as run; run(sys.argv)"
    )
    argv = [sys.executable, "-c", code]
    env = environment({"DJANGO_DEBUG": "0", "DATABASE_URL": f"sqlite:///{tmp_path}/none.sqlite3"})
    subprocess.run(argv, env=env, cwd=ROOT, check=True, timeout=100)
    paths: dict[str, str] = json.loads((tmp_path / "staticfiles.json").read_text())["paths"]
    for template in (ROOT / "templates").rglob("*.html"):
        for name in re.findall(r"{% static '([^']+)' %}", template.read_text()):
            assert re.search(r"\.[0-9a-f]{12}\.", paths[name])
            assert (tmp_path / paths[name]).exists()
    assert list(tmp_path.glob("js/*.js.gz"))


# -- compose --------------------------------------------------------------------------------------------------


def test_every_service_has_a_pinned_image_a_health_check_and_an_end(services: dict[str, Service]) -> None:
    assert {"postgres", "redis", "migrate", "prune", "nginx", "portal-1", "portal-2"} <= set(services)
    for name, service in services.items():
        tag = service["image"].partition(":")[2]
        assert tag, name
        assert tag != "latest", name
        one_shot = name in ("migrate", "prune")
        assert service["restart"] == ("no" if one_shot else "unless-stopped"), name
        if not one_shot and not name.startswith("portal-"):  # those have their image's
            assert service["healthcheck"]["test"][0] == "CMD", name
        if service["image"].startswith("xians-portal"):
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service) <= _KEYS, f"{name}: a key that compose doesn't have, or that needs a thought"
        for other, condition in service.get("depends_on", {}).items():
            assert other in services
            assert condition["condition"] in ("service_healthy", "service_completed_successfully")


_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "env_file", "environment", "healthcheck", "image", "init"),
    *("logging", "mem_limit", "networks", "ports", "profiles", "read_only", "restart", "security_opt", "shm_size"),
    *("stop_grace_period", "stop_signal", "tmpfs", "ulimits", "volumes"),
}


def test_migrations_are_over_before_a_process_starts(services: dict[str, Service], portals: dict[str, Service]) -> None:
    assert services["migrate"]["command"] == ["python", "manage.py", "migrate", "--noinput"]
    assert services["prune"]["command"] == ["python", "manage.py", "prune"]
    assert services["prune"]["profiles"] == ["jobs"]
    for portal in portals.values():
        assert portal["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert portal["build"]["dockerfile"] == "deploy/Dockerfile"
        assert int(portal["stop_grace_period"].removesuffix("s")) > _DRAIN_SECONDS
        assert portal["ulimits"]["nofile"]["hard"] >= 65_536


def test_nginx_knows_every_process_of_compose(compose: dict[str, Any], portals: dict[str, Service]) -> None:
    port = last("EXPOSE")
    subnet = ipaddress.ip_network(compose["networks"]["inside"]["ipam"]["config"][0]["subnet"])
    places = [portal["networks"]["inside"]["ipv4_address"] for portal in portals.values()]
    assert all(ipaddress.ip_address(place) in subnet for place in places)
    listed = re.findall(r"^server (\S+) ", (DEPLOY / "processes.compose.conf").read_text(), re.MULTILINE)
    assert listed == [f"{place}:{port}" for place in places]
    command = json.loads(last("CMD"))
    assert command[command.index("--port") + 1] == port
    assert f":{port}/healthz" in last("HEALTHCHECK")
    nginx = compose["services"]["nginx"]
    assert set(nginx["depends_on"]) == set(portals)
    assert compose["networks"]["inside"]["internal"] is True
    assert all("ports" not in service for name, service in compose["services"].items() if name != "nginx")
    for volume in nginx["volumes"]:
        source = volume.partition(":")[0]
        assert not source.startswith("./") or (DEPLOY / source).exists(), source


def test_every_variable_is_explained(compose: dict[str, Any], portals: dict[str, Service]) -> None:
    """What compose asks for and what the application is told stands in the examples, and nothing else does."""
    told = example(DEPLOY / ".env.example")
    known = example(ROOT / ".env.example")
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert set(told) == asked | {name for name in told if name in known}
    assert asked <= set(told)
    assert not asked & set(known)
    for portal in portals.values():
        assert portal["env_file"] == ".env"
        assert set(portal["environment"]) <= set(known)
    required = {"DJANGO_SECRET_KEY", "XIANS_SERVER_URL", "OIDC_ISSUER_URL", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"}
    assert all(told[name] == "" for name in required | {"POSTGRES_PASSWORD", "XIANS_API_KEY"})


def test_the_database_has_connections_for_every_process(compose: dict[str, Any], portals: dict[str, Service]) -> None:
    found = re.search(r'"max_size": (\d+)', (ROOT / "config/settings.py").read_text())
    assert found is not None
    options = dict(each.removeprefix("-c").split("=") for each in compose["services"]["postgres"]["command"][1:])
    for count in (len(portals), len(_ports())):
        assert count * int(found[1]) + 20 <= int(options["max_connections"])


# -- systemd --------------------------------------------------------------------------------------------------


def _ports() -> list[str]:
    return re.findall(r"^server 127\.0\.0\.1:(\d+) ", (DEPLOY / "processes.conf").read_text(), re.MULTILINE)


def test_both_layouts_start_the_same_server() -> None:
    """All that differs is where it listens; and its keep-alive outlasts nginx's."""
    image = json.loads(last("CMD"))
    service = shlex.split(unit("portal@.service")["Service"]["ExecStart"])[2:]
    image[image.index("0.0.0.0")] = service[service.index("127.0.0.1")] = "HOST"
    image[image.index("8000")] = service[service.index("%i")] = "PORT"
    assert image == service
    keep_alive = re.search(r"^\s+keepalive_timeout (\d+)s;  # the processes", (DEPLOY / "nginx.conf").read_text(), re.M)
    assert keep_alive is not None
    assert int(service[service.index("--timeout-keep-alive") + 1]) > int(keep_alive[1])


def test_a_unit_stops_in_peace_and_opens_many_files() -> None:
    service = unit("portal@.service")["Service"]
    assert int(service["TimeoutStopSec"]) > _DRAIN_SECONDS
    assert int(service["LimitNOFILE"]) >= 65_536
    assert service["Restart"] == "always"
    assert "%i/healthz" in service["ExecStartPost"]
    assert "--wait" in service["ExecStartPost"]
    assert unit("portal@.service")["Install"]["WantedBy"] == "portal.target"
    assert len(_ports()) == len(set(_ports())) >= 2


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_may_do_no_more_than_it_has_to(name: str) -> None:
    service = unit(name)["Service"]
    assert service["User"] == "portal"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    besides = ["sched_setattr"] if name == "portal@.service" else []  # what messaging/threads.py calls
    assert service["SystemCallFilter"].splitlines() == ["@system-service", "~@privileged @resources", *besides]
    assert service["EnvironmentFile"] == "/etc/portal/portal.env"
    for key in ("ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictNamespaces", "LockPersonality"):
        assert service[key] == "yes"


def test_prune_runs_daily() -> None:
    assert shlex.split(unit("portal-prune.service")["Service"]["ExecStart"])[1:] == ["manage.py", "prune"]
    timer = unit("portal-prune.timer")["Timer"]
    assert timer["OnCalendar"] == "*-*-* 03:30:00"
    assert timer["Persistent"] == "yes"


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """By systemd's own tool where there is one (elsewhere nobody would run them); paths are this machine's."""
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text()
        for found, wanted in (
            ("/srv/portal/current/.venv/bin/python", sys.executable),
            ("/srv/portal/current", str(ROOT)),
            ("/etc/portal/portal.env", str(ROOT / ".env.example")),
        ):
            text = text.replace(found, wanted)
        name = path.name.replace("@.", "@8001.")
        assert text.count("[Install]") == (0 if path.name == "portal-prune.service" else 1)
        (tmp_path / name).write_text(text)
    tool = shutil.which("systemd-analyze")
    if tool is not None:
        done = subprocess.run(
            [tool, "verify", "--man=no", *tmp_path.iterdir()],
            env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


# -- the health check -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "named"), [("portal.example,10.0.0.5", "portal.example"), (".acme.example", "acme.example")]
)
def test_the_health_check_names_a_host_that_the_application_answers_to(hosts: str, named: str) -> None:
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Host"])
            self.send_response(200 if self.path == "/healthz" else 503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        ended = [healthcheck(at + path, hosts) for path in ("/healthz", "/readyz")]
        server.shutdown()
    assert ended == [0, 1]
    assert asked == [named, named]


def test_the_health_check_says_when_nobody_is_there() -> None:
    assert healthcheck("http://127.0.0.1:9/healthz", "") == 1


def healthcheck(url: str, hosts: str) -> int:
    argv = [sys.executable, "deploy/healthcheck.py", url]
    env = {"DJANGO_ALLOWED_HOSTS": hosts}
    return subprocess.run(argv, env=env, cwd=ROOT, stderr=subprocess.DEVNULL, check=False, timeout=30).returncode
