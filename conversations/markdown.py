"""Markdown from people and agents, made safe on the server. The only `mark_safe` of the project.

Three layers, each enough alone: HTML in the text is never parsed as HTML, what the renderer makes goes through an
allow-list, and the page's Content-Security-Policy runs no script that isn't ours. Nothing from outside is
loaded: an image becomes a link to it.
"""

import functools
import re
from collections.abc import Sequence
from typing import Final

import nh3
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

MAX_LENGTH: Final = 20_000
"""Longer texts are shown as they are: Markdown of that size is a dump, and parsing it would hold up everybody."""
MAX_MARKS: Final = 3_000
MAX_BRACKETS: Final = 400
MAX_LINES: Final = 1_000
"""Past these it is no writing; brackets and stars that find no partner cost more than linear time."""

_MARKS = re.compile(r"[\[\]()*_`~<>!|]")
_TASK = re.compile(r"\[([ xX])\]\s+")
_ADDRESS = re.compile(r"https?://[^\s<>\"'`]+[^\s<>\"'`.,;:!?)\]}*_]", re.IGNORECASE)
_ALIGNMENT = re.compile(r"text-align:(left|right|center)")

_TAGS = {
    "a", "blockquote", "br", "code", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_CLEANER = nh3.Cleaner(
    tags=_TAGS,
    attributes={"a": {"href", "title"}, "ol": {"start"}},
    tag_attribute_values={cell: {"align": {"left", "right", "center"}} for cell in ("td", "th")},
    set_tag_attribute_values={"a": {"target": "_blank"}},
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
)


@functools.lru_cache(maxsize=1_024)
def render(text: str) -> SafeString:
    """`text` as harmless HTML; very long or very strange text as it is, in one preformatted block."""
    if not _is_writing(text):
        return plain(text)
    try:
        return mark_safe(_CLEANER.clean(_PARSER.render(text)))
    except RecursionError:
        return plain(text)


def _is_writing(text: str) -> bool:
    return (
        len(text) <= MAX_LENGTH
        and text.count("[") <= MAX_BRACKETS
        and text.count("\n") <= MAX_LINES
        and len(_MARKS.findall(text)) <= MAX_MARKS
    )


def plain(text: str) -> SafeString:
    """`text` to the letter, as preformatted HTML."""
    return mark_safe(f"<pre>{escape(text)}</pre>")


def excerpt(text: str, *, length: int = 140) -> str:
    """The first line or so of `text` as plain words, for toasts: no Markdown signs, no HTML."""
    head = re.sub(r"!?\[([^\]\n]{0,300})\]\([^)\n]{0,500}\)", r"\1", text[: length * 8])
    words = " ".join(re.sub(r"[*_`~#>|]+|^\s*[-+]\s+", " ", head, flags=re.MULTILINE).split())
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


def _mark_tasks(state: StateCore) -> None:
    """`- [x] done` gets a ballot box, which every reader, sighted or not, understands."""
    for before, token in zip(state.tokens[1:], state.tokens[2:], strict=False):
        children = token.children
        if token.type != "inline" or before.type != "paragraph_open" or not children:
            continue
        found = _TASK.match(children[0].content) if token.level >= 3 and children[0].type == "text" else None
        if found:
            box = "☐ " if found[1] == " " else "☑ "
            children[0].content = box + children[0].content[found.end() :]


def _link_addresses(state: StateCore) -> None:
    """Bare web addresses in running text become links."""
    for token in state.tokens:
        if token.type == "inline" and token.children and "://" in token.content:
            token.children = _with_links(token.children)


def _with_links(children: Sequence[Token]) -> list[Token]:
    linked: list[Token] = []
    depth = 0
    for child in children:
        depth += child.nesting if child.type in {"link_open", "link_close"} else 0
        if child.type != "text" or depth > 0:
            linked.append(child)
        else:
            linked.extend(_split_addresses(child.content))
    return linked


def _split_addresses(text: str) -> list[Token]:
    parts: list[Token] = []
    end = 0
    for found in _ADDRESS.finditer(text):
        parts += [
            Token("text", "", 0, content=text[end : found.start()]),
            Token("link_open", "a", 1, attrs={"href": found[0]}),
            Token("text", "", 0, content=found[0]),
            Token("link_close", "a", -1),
        ]
        end = found.end()
    return [*parts, Token("text", "", 0, content=text[end:])]


class _Renderer(RendererHTML):
    """Where our pages want other HTML than the standard renderer makes."""

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        name = tokens[idx].content or "image"
        source = str(tokens[idx].attrs.get("src", ""))
        if not source.startswith(("http://", "https://")):
            return escape(name)
        return f'<a href="{escape(source)}">{escape(name)} (image)</a>'

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return "<div><table>"

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return "</table></div>"

    def th_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return _cell(tokens[idx])

    def td_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return _cell(tokens[idx])


def _cell(token: Token) -> str:
    found = _ALIGNMENT.fullmatch(str(token.attrs.get("style", "")))
    return f'<{token.tag} align="{found[1]}">' if found else f"<{token.tag}>"


def _parser() -> MarkdownIt:
    options = {"html": False, "linkify": False, "breaks": True, "langPrefix": "", "maxNesting": 20}
    parser = MarkdownIt("commonmark", options, renderer_cls=_Renderer).enable(["table", "strikethrough"])
    parser.core.ruler.push("tasks", _mark_tasks)
    parser.core.ruler.push("addresses", _link_addresses)
    return parser


_PARSER = _parser()
