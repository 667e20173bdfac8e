"""What `manage.py demo` sets where the person has set nothing: a site of its own below var/demo."""

import os
import secrets
from pathlib import Path

from demo.world import API_KEY

FOLDER = Path(__file__).resolve().parent.parent / "var" / "demo"


def prepare() -> None:
    """Set the environment of the demo, before Django reads its settings. What was set outside doesn't count."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in [name for name in os.environ if name.startswith(("DJANGO_", "XIANS_", "OIDC_", "STREAM_"))]:
        del os.environ[name]
    os.environ.pop("REDIS_URL", None)
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DJANGO_SECRET_KEY": _secret(),
        "DJANGO_PLAIN_HTTP": "1",
        "DJANGO_ALLOWED_HOSTS": "127.0.0.1,localhost",
        "DJANGO_LOG_LEVEL": "ERROR",
        "DATABASE_URL": f"sqlite:///{FOLDER / 'db.sqlite3'}",
        "XIANS_API_KEY": API_KEY,
        "OIDC_CLIENT_ID": "portal",
        "OIDC_CLIENT_SECRET": "portal-secret",
    }


def _secret() -> str:
    """Kept from run to run, so that whoever was signed in still is."""
    path = FOLDER / "secret"
    if not path.exists():
        path.write_text(secrets.token_urlsafe(48))
        path.chmod(0o600)
    return path.read_text()
