"""`POST /_control/<name>` with a JSON object: the control object for tests in another process.

A call that makes no sense is a 400, a wait that ended in vain a 408, an unknown name a 404 with all names.

Nobody is authenticated here, which is why the server binds to the loopback address only.
"""

import inspect
import json

from demo.xians import notation
from demo.xians.call import Receive, Scope, Send, read_body
from demo.xians.control import Control
from demo.xians.notation import Json

_PREFIX = "/_control/"


class ControlSurface:
    """An ASGI application over the public methods of a `Control`."""

    def __init__(self, control: Control) -> None:
        self._methods = {
            name: method
            for name, method in inspect.getmembers(control, inspect.ismethod)
            if not name.startswith("_") and name != "thread_of"
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, answer = await self._answer(scope["path"].removeprefix(_PREFIX), await read_body(receive))
        body = notation.relaxed(answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, name: str, body: bytes) -> tuple[int, Json]:
        method = self._methods.get(name)
        if method is None:
            return 404, {"error": f"no control {name}", "controls": sorted(self._methods)}
        try:
            arguments = json.loads(body or b"{}")
            inspect.signature(method).bind(**arguments)
            answer = method(**arguments)
            return 200, await answer if inspect.isawaitable(answer) else answer
        except TimeoutError:
            return 408, {"error": f"{name} timed out"}
        except (TypeError, KeyError, ValueError) as error:
            return 400, {"error": f"{type(error).__name__}: {error}"}
