"""A pool of connections to upstream for calls that are answered at once: aiohttp's transport under httpx's interface.

httpx's own pool walks every open connection on each open and close (traps.md section 3).
"""

from __future__ import annotations

import ssl
from functools import lru_cache

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream, map_aiohttp_exceptions
from yarl import URL

_KEPT_SECONDS = 60


@lru_cache(maxsize=16)
def _timeout(connect: float, read: float, pool: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(sock_connect=connect, sock_read=read, connect=pool)


class PoolTransport(AiohttpTransport):
    """Asks for a request's `target` (httpx's extension) as it is: to take a URL apart and put it together again, twice
    for each call, costs as much as the call. Redirects are not followed, bodies not unpacked."""

    def __init__(self, tls: ssl.SSLContext, *, connections: int) -> None:
        def session() -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(limit=connections, ssl=tls, keepalive_timeout=_KEPT_SECONDS)
            return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

        super().__init__(verify=tls, trust_env=False, client=session)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        limits = request.extensions["timeout"]
        origin = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
        with map_aiohttp_exceptions():
            answer = await self.client.request(
                request.method,
                URL(origin + request.extensions["target"].decode("ascii"), encoded=True),
                headers=request.headers,
                data=request.content or None,
                allow_redirects=False,
                auto_decompress=False,
                timeout=_timeout(limits["connect"], limits["read"], limits["pool"]),
            )
        return httpx.Response(
            answer.status, headers=answer.raw_headers, stream=AiohttpResponseStream(answer), request=request
        )
