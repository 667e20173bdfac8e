"""The application with a ledger's line so short that a test can fill it."""

from config.asgi import application
from messaging import ledger

assert ledger._MAX_WAITING > 100
ledger._MAX_WAITING = 100

__all__ = ["application"]
