"""The environment that the tests' settings are read from.

pytest imports this before it sets Django up (`-p` in pyproject.toml), in every xdist worker again. What the
caller's shell has set for the application doesn't reach the tests. The database is this worker's own
PostgreSQL: only its address is fixed here, the `postgres` fixture starts it when a test needs it.
"""

import os

from tests.services.ports import free_port

DATABASE_PORT = free_port()

APPLICATION = {
    "DJANGO_SETTINGS_MODULE": "config.settings",
    "DJANGO_DEBUG": "1",
    "DJANGO_SECRET_KEY": "only-for-tests-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789",
    "DJANGO_ALLOWED_HOSTS": "127.0.0.1,localhost,testserver",
    "DATABASE_URL": f"postgres://portal@127.0.0.1:{DATABASE_PORT}/portal",
    # Nothing listens at port 9: a test that forgets its stand-in is refused at once.
    "XIANS_SERVER_URL": "http://127.0.0.1:9",
    "XIANS_API_KEY": "sk-Xnai-test-key-test-key-test-key-test-key-test",
    "OIDC_ISSUER_URL": "http://127.0.0.1:9/oidc",
    "OIDC_CLIENT_ID": "portal",
    "OIDC_CLIENT_SECRET": "portal-secret",
}
_PREFIXES = ("DATABASE_", "DJANGO_", "XIANS_", "OIDC_", "STREAM_")
_NAMES = ("REDIS_URL",)

for _name in [name for name in os.environ if name.startswith(_PREFIXES) or name in _NAMES]:
    del os.environ[_name]
os.environ.update(APPLICATION)
