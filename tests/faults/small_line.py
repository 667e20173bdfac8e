"""The application with a ledger's line so short that a test can fill it."""

from config.asgi import application
from messaging import gaps, ledger

assert ledger._MAX_WAITING > 10 * gaps._AT_ONCE  # what is found at once fits into the line
ledger._MAX_WAITING = 100
gaps._AT_ONCE = 10

__all__ = ["application"]
