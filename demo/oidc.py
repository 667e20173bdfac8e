"""The demo's sign-in: an OpenID provider on loopback that knows the two people.

`python -m demo.oidc --port 0` prints `{"port": ..., "issuer": ...}` when it is ready. On its page a
newcomer presses one of two buttons, named after the e-mail addresses; any other address may be typed as
"Subject", and gets an account without a verified e-mail. No password is asked for. Any client id and
secret do; a code challenge (PKCE) is accepted, but this provider does not verify it.
"""

import argparse
import json
import logging
import os
import signal
import threading
from types import FrameType

import jinja2
import oidc_provider_mock
import werkzeug.serving

from demo import people

HOST = "127.0.0.1"

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Demo sign-in</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
  article { border: 1px solid #ccd; border-radius: .5rem; padding: 1rem; margin: 1rem 0 }
  button { font: inherit; padding: .4rem .8rem; margin: .2rem 0; cursor: pointer }
  fieldset { border: 0; padding: 0 } input { font: inherit; padding: .4rem }
</style>
<main>
  <p>This is the demo's sign-in: press a name, no password is needed.</p>
  {% block content %}{% endblock %}
</main>
</html>
"""
"""Replaces the package's own frame, which would fetch its style sheet from another host."""

_SIGN_OUT = """\
{% extends "_base.html" %}
{% block content %}
<h1>You are signed out of Conversations</h1>
<form method="post" action="{{ end_session_confirm_url }}">
  <input type="hidden" name="redirect_uri" value="{{ redirect_uri or "" }}">
  <button>Sign out of the demo's provider, too</button>
</form>
{% endblock %}
"""


def make_server(port: int = 0) -> werkzeug.serving.BaseWSGIServer:
    """A bound server, to be run with `serve_forever`; port 0 takes a free one."""
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # plain HTTP, which is all that loopback needs
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    known = [oidc_provider_mock.User(sub=person.email, claims=people.claims(person)) for person in people.everyone()]
    provider = oidc_provider_mock.app(user_claims=known)
    provider.debug = False
    own = jinja2.DictLoader({"_base.html": _PAGE, "end_session_form.html": _SIGN_OUT})
    provider.jinja_loader = jinja2.ChoiceLoader([own, *filter(None, [provider.jinja_loader])])
    return werkzeug.serving.make_server(HOST, port, provider, threaded=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.oidc", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--stop-with-stdin", action="store_true", help="end when standard input is closed")
    options = parser.parse_args()
    server = make_server(options.port)
    signal.signal(signal.SIGTERM, _leave)
    if options.stop_with_stdin:
        threading.Thread(target=_shut_down_with_stdin, args=(server,), daemon=True).start()
    issuer = f"http://{HOST}:{server.port}"
    print(json.dumps({"port": server.port, "issuer": issuer, "pid": os.getpid()}), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _shut_down_with_stdin(server: werkzeug.serving.BaseWSGIServer) -> None:
    while os.read(0, 1024):
        pass
    server.shutdown()


if __name__ == "__main__":
    main()
