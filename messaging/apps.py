"""Everything between upstream and one browser's stream."""

from django.apps import AppConfig


class MessagingConfig(AppConfig):
    name = "messaging"
