"""Addresses of the API (interfaces.md section 2), mounted at /api/tenants/."""

from django.urls import path

from messaging import views

app_name = "messaging"

urlpatterns = [
    path("", views.tenants, name="tenants"),
    path("<str:tenant_id>/activations/", views.activations, name="activations"),
    path("<str:tenant_id>/messaging/listen", views.listen, name="listen"),
    path("<str:tenant_id>/messaging/send", views.send, name="send"),
    path("<str:tenant_id>/messaging/topics", views.topics, name="topics"),
    path("<str:tenant_id>/messaging/history", views.history, name="history"),
    path("<str:tenant_id>/messaging/messages", views.messages, name="messages"),
    path("<str:tenant_id>/messaging/unread", views.unread, name="unread"),
    path("<str:tenant_id>/messaging/read", views.read, name="read"),
]
