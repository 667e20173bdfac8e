"""A stand-in in this process for what is asked and answered, and one in a process of its own for streams."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from demo.children import StandIn
from demo.xians import World, XiansApp, create_app
from tests.demo.contract import KEY, ada_world


@pytest.fixture
def world() -> World:
    return ada_world()


@pytest.fixture
def app(world: World) -> XiansApp:
    return create_app(world)


@pytest.fixture
async def client(app: XiansApp) -> AsyncIterator[httpx.AsyncClient]:
    """Asks the stand-in in this process, with the system administrator's key."""
    transport = httpx.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://xians", headers=headers) as client:
        yield client


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    state: Path = tmp_path_factory.mktemp("standin") / "state.jsonl"
    with StandIn(state=state, blind_seconds=0) as standin:
        yield standin


@pytest.fixture
def standin(process: StandIn) -> StandIn:
    """An empty, well-behaved stand-in in another process, with one agent to talk to."""
    process.control("reset", messages=True)
    process.control("cut", mode="reset")
    process.control("wait_streams", count=0, exactly=True)
    process.control("behave", blind_seconds=0)
    process.control("activation", tenant="acme", agent="Helper", name="Desk", active=True)
    return process
