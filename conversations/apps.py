"""What people see: pages and fragments."""

from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    name = "conversations"
