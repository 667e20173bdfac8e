"""Every address of the site; what each promises is in interfaces.md."""

from django.contrib import admin
from django.urls import include, path

from config import signin, views

urlpatterns = [
    path("api/tenants/", include("messaging.urls")),
    path("oidc/logout/", signin.SignOutView.as_view(), name="oidc_logout"),  # the library has no setting for it
    path("oidc/", include("mozilla_django_oidc.urls")),
    path("admin/", admin.site.urls),
    path("healthz", views.healthz),
    path("readyz", views.readyz),
    path("metrics", views.metrics),
    path("", include("conversations.urls")),
]
handler500 = views.server_error
