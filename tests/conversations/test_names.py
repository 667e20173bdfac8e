"""Agent and activation names in addresses (F121), topic names in attributes (F107)."""

from urllib.parse import unquote, urlsplit

import pytest
from django.urls import Resolver404, resolve, reverse
from hypothesis import given
from hypothesis import strategies as st

from conversations import links, topic_names
from conversations.converters import MAX_LENGTH, NameConverter

NAMES = [
    *("a", "Invoice Helper", "a/b", "/", "//", "a/", "%", "%%", "100%", "%2F", "%252F", "%25", "a%2fb", "a%zzb"),
    *("…", "...", "a.b", ".a", "~", "a?b", "a#b", "a&b=c", "a+b", "a;b", "a:b", "a@b", "a\\b", "'", '"', "<b>"),
    *("Ærlig Åse", "日本語", "🇳🇴", "e\u0301", "\u00e9", " a ", "a" * 200, "\u202eevil", "None", "stream"),
]


@pytest.mark.parametrize("name", NAMES)
def test_it_brings_a_name_back_from_an_address(name: str) -> None:
    path = reverse("conversations:conversation", args=[name, name])
    assert path.count("/") == 4
    assert resolve(unquote(path)).kwargs == {"agent_name": name, "activation_name": name}


def test_it_encodes_a_slash_twice() -> None:
    assert reverse("conversations:conversation", args=["a/b", "c d"]) == "/conversations/a%252Fb/c%20d/"


@given(st.text(min_size=1, max_size=60))
def test_it_brings_any_name_back(name: str) -> None:
    converter = NameConverter()
    try:
        came_back = converter.to_python(converter.to_url(name))
    except ValueError:
        assert name in {".", ".."} or not name.isprintable()
    else:
        assert came_back == name


@pytest.mark.parametrize("segment", [".", "..", "a\x00b", "a\nb", "\x7f", "x" * (MAX_LENGTH + 1)])
def test_it_refuses_what_would_be_another_address(segment: str) -> None:
    """F121"""
    with pytest.raises(Resolver404):
        resolve(f"/conversations/{segment}/x/")
    with pytest.raises(Resolver404):
        resolve(f"/conversations/x/{segment}/")


def test_it_names_the_tenant_and_the_topic_in_every_link() -> None:
    url = urlsplit(links.page("a&b", "x", "y", "Q2 / 100% #1"))
    assert url.query == "tenant=a%26b&topic=Q2+%2F+100%25+%231"


@pytest.mark.parametrize("topic", ["", " ", "a", "A", "General Discussions", "é", "<b>", "x" * 10_000, "\x00"])
def test_it_gives_each_topic_a_key_that_is_safe_in_attributes(topic: str) -> None:
    assert topic_names.key(topic).isalnum()
    assert topic_names.key(topic) == topic_names.key(topic)


def test_it_keeps_similar_topics_apart() -> None:
    similar = ["", " ", "a", "A", "General Discussions", "general-discussions", "é", "e\u0301", "a/b", "a%2Fb"]
    assert len({topic_names.key(topic) for topic in similar}) == len(similar)


@pytest.mark.parametrize(
    ("topic", "title"),
    [("", "General Discussions"), ("Q2", "Q2"), ("a\nb\x00c", "a b c"), ("x" * 300, "x" * 200 + "…")],
)
def test_it_shows_a_topic_by_a_clean_name(topic: str, title: str) -> None:
    assert topic_names.title(topic) == title
