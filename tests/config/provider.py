"""An OpenID provider that answers as a test tells it to: honestly at first, then as wrongly as providers can."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.services.ports import free_port

type Json = dict[str, Any]

ABSENT = object()
"""In a script: leave this key out."""
HANG_SECONDS = 30
KEY_ID = "key-1"


@dataclass(frozen=True)
class Reply:
    """What an endpoint answers, whatever it is asked."""

    status: int = 200
    body: str = ""
    content_type: str = "application/json"


class Hang(Reply):
    """Takes the request and answers nothing, until the test ends."""


@dataclass
class Script:
    """How the provider answers. `token`, `answer` and `userinfo` are laid over what an honest one would say."""

    person: Json
    token: Json = field(default_factory=dict)
    answer: Json = field(default_factory=dict)
    userinfo: Json = field(default_factory=dict)
    document: Json = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    refreshing: Reply | None = None
    refreshed: Json = field(default_factory=dict)
    sign: Callable[[Provider, Json], str] | None = None


def laid_over(honest: Json, script: Json) -> Json:
    return {key: value for key, value in {**honest, **script}.items() if value is not ABSENT}


class Provider:
    """Runs in a thread; `script` may be changed at any time."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.client_id, self.client_secret = "portal", "canary-client-secret-0123456789-0123456789"
        self._numbers = itertools.count(1)
        self._grants: dict[str, Json] = {}
        self._let_go = threading.Event()
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="scripted provider")
        self._thread.start()

    def reset(self) -> None:
        """Honest again, with somebody new at it."""
        self._let_go.set()
        self._let_go = threading.Event()
        self.asked: list[tuple[str, Json]] = []
        self._fresh_tokens: set[str] = set()
        self.script = Script(self.somebody())

    def somebody(self) -> Json:
        return {
            "sub": f"subject-{next(self._numbers)}",
            "email": "alice@acme.example",
            "email_verified": True,
            "name": "Alice Andersen",
        }

    def close(self) -> None:
        self._let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def env(self) -> dict[str, str]:
        """What the application has to be told."""
        return {
            "OIDC_ISSUER_URL": self.issuer,
            "OIDC_CLIENT_ID": self.client_id,
            "OIDC_CLIENT_SECRET": self.client_secret,
        }

    def forms(self, grant_type: str) -> list[Json]:
        """What the token endpoint was sent for this grant type."""
        return [form for path, form in self.asked if path == "/token" and form.get("grant_type") == grant_type]

    def accept(self, location: str) -> str:
        """The person agrees at the authorization endpoint: the address that they are sent back to."""
        query = dict(parse_qsl(urlsplit(location).query))
        code = f"code-{next(self._numbers)}"
        self._grants[code] = query
        back = urlsplit(query["redirect_uri"])
        return f"{back.path}?{urlencode({'code': code, 'state': query['state']})}"

    def signed(self, claims: Json, *, key: Any = None, algorithm: str = "RS256", **header: Any) -> str:
        return jwt.encode(claims, key or self.key, algorithm=algorithm, headers={"kid": KEY_ID, **header})

    # -- endpoints --------------------------------------------------------------------------------------------

    def answer(self, path: str, form: Json) -> Reply:
        self.asked.append((path, form))
        scripted = self.script.replies.get(path)
        if isinstance(scripted, Hang):
            self._let_go.wait(HANG_SECONDS)
        if scripted is not None:
            return scripted
        routes: dict[str, Callable[[Json], Reply]] = {
            "/.well-known/openid-configuration": self._document,
            "/jwks": self._jwks,
            "/token": self._token,
            "/userinfo": self._userinfo,
        }
        return routes[path](form) if path in routes else Reply(404)

    def _document(self, form: Json) -> Reply:
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "userinfo_endpoint": "userinfo"}
        honest = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"}
        honest |= {name: f"{self.issuer}/{path}" for name, path in names.items()}
        return _json(laid_over(honest, self.script.document))

    def _jwks(self, form: Json) -> Reply:
        public: Json = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return _json({"keys": [{**public, "kid": KEY_ID, "alg": "RS256", "use": "sig"}]})

    def _token(self, form: Json) -> Reply:
        if form.get("client_secret") != self.client_secret:
            return _json({"error": "invalid_client"}, 401)
        if form["grant_type"] == "refresh_token":
            return self._refresh(form)
        asked = self._grants.pop(form["code"], None)
        if asked is None or _challenge(form["code_verifier"]) != asked["code_challenge"]:
            return _json({"error": "invalid_grant"}, 400)
        now = int(time.time())
        honest = {"iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims = laid_over({**honest, "sub": self.script.person["sub"]}, self.script.token)
        sign = self.script.sign or (lambda provider, told: provider.signed(told))
        return _json(laid_over({**self._fresh(3600), "id_token": sign(self, claims)}, self.script.answer))

    def _refresh(self, form: Json) -> Reply:
        if self.script.refreshing is not None:
            return self.script.refreshing
        if form["refresh_token"] not in self._fresh_tokens:  # each works once, as careful providers have it
            return _json({"error": "invalid_grant"}, 400)
        self._fresh_tokens.discard(form["refresh_token"])
        return _json(laid_over(self._fresh(3600), self.script.refreshed))

    def _fresh(self, lifetime: float) -> Json:
        number = next(self._numbers)
        refresh_token = f"canary-refresh-{number}"
        self._fresh_tokens.add(refresh_token)
        tokens = {"access_token": f"canary-access-{number}", "refresh_token": refresh_token}
        return {**tokens, "token_type": "Bearer", "expires_in": lifetime}

    def _userinfo(self, form: Json) -> Reply:
        return _json(laid_over(self.script.person, self.script.userinfo))


def _json(told: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(told))


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            self._reply({name: values[-1] for name, values in parse_qs(body).items()})

        def _reply(self, form: Json) -> None:
            reply = provider.answer(urlsplit(self.path).path, form)
            body = reply.body.encode()
            try:
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:  # who asked didn't wait
                self.close_connection = True

        def log_message(self, *words: Any) -> None:
            """Says nothing."""

    return Handler
