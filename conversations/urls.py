"""Addresses of pages (interfaces.md section 5). Mounted at the root of the site."""

from django.urls import include, path, register_converter

from conversations.converters import NameConverter
from conversations.views import changes, conversation, live, outside, start

register_converter(NameConverter, "name")

app_name = "conversations"

parts = [
    path("", conversation.conversation, name="conversation"),
    path("messages/", conversation.messages, name="messages"),
    path("topics/", conversation.topics, name="topics"),
    path("stream/", live.stream, name="stream"),
    path("send/", changes.send, name="send"),
    path("read/", changes.read, name="read"),
    path("delete/", changes.delete, name="delete"),
]

urlpatterns = [
    path("", start.home, name="home"),
    path("dashboard/", start.dashboard, name="dashboard"),
    path("dashboard/stream/", live.overview, name="overview"),
    path("conversations/", start.picker, name="picker"),
    path("conversations/<name:agent_name>/<name:activation_name>/", include(parts)),
    path("tenant/", start.tenant, name="tenant"),
    path("login/", outside.login, name="login"),
    path("server-unavailable/", outside.unavailable, name="unavailable"),
    path("server-unavailable", outside.unavailable),
]
