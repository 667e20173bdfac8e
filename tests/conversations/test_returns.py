"""Where the waiting room sends people: to pages of this site only (F118)."""

import pytest

from conversations import returns

OURS = [
    "/",
    "/dashboard/",
    "/dashboard/?tenant=acme",
    "/conversations/",
    "/conversations/?q=a+b&show=all",
    "/conversations/Invoice%20Helper/Nordic%20desk/",
    "/conversations/Invoice%20Helper/Nordic%20desk/?topic=Q2%20review&tenant=acme",
    "/conversations/a%252Fb/100%2525/",
    "/conversations/%C3%85se/%E6%97%A5%E6%9C%AC/?topic=%F0%9F%87%B3%F0%9F%87%B4",
    "/conversations/a;b/c,d/",
    "/conversations/a%3Fb/c%23d/?topic=//evil.example",
    "/dashboard/#end",
]

NOT_OURS = [
    "",
    " ",
    "conversations",
    "dashboard/",
    " /dashboard/",
    "/dashboard/ ",
    "\t/dashboard/",
    "\n/dashboard/",
    "/dash\nboard/",
    "/dashboard/\r\nLocation: https://evil.example",
    "/dashboard/?a=\x00",
    "//evil.example",
    "//evil.example/dashboard/",
    "///evil.example",
    "////evil.example/dashboard/",
    "/\\evil.example",
    "\\\\evil.example",
    "\\/evil.example",
    "/\\/evil.example",
    "/\t/evil.example",
    "/%5cevil.example",
    "/%5C%5Cevil.example",
    "/%2fevil.example/",
    "/%2f%2fevil.example/",
    "/%09/evil.example",
    "/./dashboard/",
    "/../dashboard/",
    "/conversations/../../",
    "/conversations/%2e%2e/%2e%2e/",
    "/conversations/./x/",
    "/conversations/x/..%2f..%2f/",
    "http://evil.example",
    "https://evil.example/dashboard/",
    "HTTPS://EVIL.EXAMPLE/",
    "https:evil.example",
    "https:/evil.example",
    "http:///evil.example",
    "ftp://evil.example",
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "/javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "mailto:a@evil.example",
    "https://testserver@evil.example/",
    "//testserver/dashboard/",
    "http://testserver/dashboard/",
    "/\u3000/evil.example",
    "\u2028/dashboard/",
    "/\u202edashboard/",
    "／dashboard/",
    "/nowhere/",
    "/dashboard",
    "/admin/",
    "/login/",
    "/oidc/logout/",
    "/oidc/authenticate/?next=//evil.example",
    "/server-unavailable/",
    "/server-unavailable/?returnUrl=/dashboard/",
    "/tenant/",
    "/readyz",
    "/api/tenants/",
    "/static/js/page.js",
    "/conversations/Invoice%20Helper/Nordic%20desk/stream/",
    "/conversations/Invoice%20Helper/Nordic%20desk/send/",
    "/conversations/Invoice%20Helper/Nordic%20desk/topics/",
    "/conversations/" + "x" * 2_000 + "/y/",
    "/dashboard/?" + "x" * 4_096,
    "http://[::1",
    "/conversations/%00/x/",
]


@pytest.mark.parametrize("url", OURS)
def test_it_goes_back_to_pages_of_ours(url: str) -> None:
    """F118"""
    assert returns.safe(url) == url


@pytest.mark.parametrize("url", NOT_OURS)
def test_it_goes_to_the_dashboard_instead_of_anywhere_else(url: str) -> None:
    """F118"""
    assert returns.safe(url) == "/dashboard/"


def test_it_goes_to_the_dashboard_where_nothing_is_asked() -> None:
    assert returns.safe(None) == "/dashboard/"
