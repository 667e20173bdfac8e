"""The application, but what it does every minute it does every second."""

from config.asgi import application
from messaging import watch

assert watch._SWEEP_SECONDS == 60
watch._SWEEP_SECONDS = 1

__all__ = ["application"]
