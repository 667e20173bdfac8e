"""Settings, all from the environment; `.env.example` lists them with their defaults (interfaces.md section 6).

What a value may be is checked while it is read, what may be absent in `config.checks`; both stop the start with a
sentence that names the variable.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import dj_database_url
from django.utils.csp import CSP

from config import environment as env

BASE_DIR = Path(__file__).resolve().parent.parent
IS_TEST_RUN = "pytest" in sys.modules

DEBUG = env.flag("DJANGO_DEBUG", default=False)
SECRET_KEY = env.text("DJANGO_SECRET_KEY")
if not SECRET_KEY:
    if not DEBUG:
        raise env.Misconfigured("DJANGO_SECRET_KEY must be set (or DJANGO_DEBUG=1 for development).")
    SECRET_KEY = "development-" + secrets.token_urlsafe(32)
ALLOWED_HOSTS = env.names("DJANGO_ALLOWED_HOSTS") or (["localhost", "127.0.0.1", "[::1]"] if DEBUG else [])
CSRF_TRUSTED_ORIGINS = env.origins("DJANGO_CSRF_TRUSTED_ORIGINS")

# -- upstream -------------------------------------------------------------------------------------------------

XIANS_SERVER_URL = env.web_address("XIANS_SERVER_URL")
XIANS_API_KEY = env.text("XIANS_API_KEY")
XIANS_CONNECT_TIMEOUT = env.number("XIANS_CONNECT_TIMEOUT", 5, at_least=0.1, at_most=120)
XIANS_READ_TIMEOUT = env.number("XIANS_READ_TIMEOUT", 30, at_least=0.1, at_most=600)
XIANS_HEARTBEAT_SECONDS = env.whole_number("XIANS_HEARTBEAT_SECONDS", 15, at_least=1, at_most=300)
XIANS_FEED_GRACE_SECONDS = env.number("XIANS_FEED_GRACE_SECONDS", 30, at_least=0, at_most=3600)
STREAM_MAX_PER_PARTICIPANT = env.whole_number("STREAM_MAX_PER_PARTICIPANT", 20, at_least=1, at_most=100_000)
STREAM_MAX_PER_PROCESS = env.whole_number("STREAM_MAX_PER_PROCESS", 10_000, at_least=1, at_most=1_000_000)
TENANTS_CACHE_SECONDS = env.whole_number("XIANS_TENANTS_CACHE_SECONDS", 120, at_least=0, at_most=3600)
ACCESS_TOKEN_READER = "config.tokens.access_token"
ACCESS_TOKEN_DUE = "config.tokens.is_due"

# -- applications ---------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "daphne",
    "servestatic.runserver_nostatic",
    "config.apps.PortalConfig",
    "messaging",
    "conversations",
    "demo",
    "django_htmx",
    "channels",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "mozilla_django_oidc",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "config.middleware.OwnPagesOnly",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "config.middleware.DatabaseAway",  # the first that asks the database
    "config.middleware.KeepSignedIn",
    "config.middleware.SignInRequired",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",  # after the sign-in: a stranger is told 401, not 403
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# -- storage --------------------------------------------------------------------------------------------------

DATABASE_TIMEOUT_SECONDS = env.number("DATABASE_TIMEOUT_SECONDS", 5, at_least=0.1, at_most=600)
DATABASE_URL = env.text("DATABASE_URL") or f"sqlite:///{BASE_DIR / 'var' / 'db.sqlite3'}"
if env.parts("DATABASE_URL", DATABASE_URL).scheme not in ("postgres", "postgresql", "sqlite"):
    raise env.Misconfigured("DATABASE_URL must begin with postgres:// or sqlite:///.")
try:
    _database: dict[str, Any] = dict(dj_database_url.parse(DATABASE_URL, conn_health_checks=True))
except ValueError as problem:
    raise env.Misconfigured("DATABASE_URL must be a well-formed address.") from problem
if _database["ENGINE"] == "django.db.backends.sqlite3":
    Path(_database["NAME"]).parent.mkdir(parents=True, exist_ok=True)
    # WAL and IMMEDIATE, or concurrent writers get "database is locked" (traps.md section 2)
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
elif _database["ENGINE"] == "django.db.backends.postgresql" and not IS_TEST_RUN:
    from config.database import LimitedConnection, check

    # Streams hold no connection, so a small pool serves thousands of them. While the database is away, whoever waits is
    # told so soon; and the pool starts anew every few seconds, instead of after ever longer pauses.
    _database["OPTIONS"] = {
        "connect_timeout": 5,
        **_database.get("OPTIONS", {}),
        "pool": {
            "connection_class": LimitedConnection,
            "check": check,
            "min_size": 1,
            "max_size": 8,
            "timeout": 3,
            "reconnect_timeout": 3,
            "max_idle": 120,
        },
    }
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.text("REDIS_URL")
if REDIS_URL and env.parts("REDIS_URL", REDIS_URL).scheme not in ("redis", "rediss", "unix"):
    raise env.Misconfigured("REDIS_URL must begin with redis:// or rediss://.")
CHANNEL_LAYERS: dict[str, Any]
CACHES: dict[str, Any]
if REDIS_URL:
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [REDIS_URL]},
        }
    }
    CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL},
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# -- sign-in --------------------------------------------------------------------------------------------------

OIDC_ISSUER_URL = env.web_address("OIDC_ISSUER_URL")
OIDC_RP_CLIENT_ID = env.text("OIDC_CLIENT_ID")
OIDC_RP_CLIENT_SECRET = env.text("OIDC_CLIENT_SECRET")
OIDC_RP_SIGN_ALGO = env.text("OIDC_SIGN_ALGORITHM", "RS256")
OIDC_RP_SCOPES = "openid email profile offline_access"
OIDC_USE_PKCE = True
OIDC_TIMEOUT = 5
OIDC_CALLBACK_CLASS = "config.signin.CallbackView"
OIDC_AUTHENTICATE_CLASS = "config.signin.SignInView"
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/dashboard/"
LOGIN_REDIRECT_URL_FAILURE = "/login/?failed=unknown"
LOGOUT_REDIRECT_URL = "/login/"
AUTHENTICATION_BACKENDS = [
    "config.auth.OIDCBackend",
    "django.contrib.auth.backends.ModelBackend",  # for the administrators' own sign-in at /admin/
]
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_AGE = 7 * 24 * 3600
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # not in a cookie of its own

# -- web security ---------------------------------------------------------------------------------------------

# Behind a proxy that ends TLS everything is for HTTPS only; a site for this machine alone needs no such proxy.
_is_local = all(host in ("localhost", "127.0.0.1", "[::1]", "testserver") for host in ALLOWED_HOSTS)
_is_https = not env.flag("DJANGO_PLAIN_HTTP", default=DEBUG or _is_local)
SESSION_COOKIE_NAME = "__Host-sessionid" if _is_https else "sessionid"
TENANT_COOKIE_NAME = "__Host-tenant" if _is_https else "tenant"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _is_https
SESSION_COOKIE_HTTPONLY = True  # the CSRF cookie is for scripts to read: other clients have no other way to the token
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = "__Host-csrftoken" if _is_https else "csrftoken"
CSRF_FAILURE_VIEW = "config.views.csrf_failure"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _is_https else None
SECURE_SSL_REDIRECT = _is_https
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if _is_https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _is_https
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_CSP = {
    "default-src": [CSP.NONE],
    "script-src": [CSP.SELF],
    "style-src": [CSP.SELF],
    "img-src": [CSP.SELF, "data:"],
    "font-src": [CSP.SELF],
    "connect-src": [CSP.SELF],
    "form-action": [CSP.SELF, *([OIDC_ISSUER_URL] if OIDC_ISSUER_URL else [])],
    "frame-ancestors": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "object-src": [CSP.NONE],
    "manifest-src": [CSP.SELF],
}

# -- static files ---------------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
_is_collected = (STATIC_ROOT / "staticfiles.json").exists() or "collectstatic" in sys.argv  # which is about to write it
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "servestatic.storage.CompressedManifestStaticFilesStorage"
        if _is_collected and not DEBUG
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
SERVESTATIC_USE_FINDERS = not _is_collected or DEBUG
SERVESTATIC_ALLOW_ALL_ORIGINS = False

# -- language and logs ----------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "one_line": {"()": "config.logs.OneLine", "format": "%(asctime)s %(levelname)s %(name)s %(message)s"}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "one_line"}},
    "root": {"handlers": ["stderr"], "level": env.log_level("DJANGO_LOG_LEVEL", "INFO")},
    "loggers": {
        "django": {"level": "INFO"},  # without the handler that Django gives it while debugging
        "uvicorn.error": {"handlers": ["stderr"], "propagate": False},  # it logs what we failed to catch
        "httpx": {"level": "WARNING"},  # at INFO it logs whole addresses
        "aiohttp": {"level": "WARNING"},
        "django.server": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
        "psycopg.pool": {"level": "ERROR"},  # `config.middleware` says it, and not every second
        "mozilla_django_oidc": {"level": "WARNING"},
        "channels_redis": {"level": "CRITICAL"},  # a stack a second while Redis is away; messaging.bus says it once
    },
}
