"""Wires the site when Django starts."""

from __future__ import annotations

from django.apps import AppConfig


class PortalConfig(AppConfig):
    name = "config"
    verbose_name = "Xians portal"

    def ready(self) -> None:
        from config import checks, signin  # noqa: F401 - registers system checks and the sign-out's receiver
