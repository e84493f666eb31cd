"""Text that came from somewhere else, made safe to put into a page, a comment or a terminal.

Names, reasons and summaries carry column names, commit messages and what other programs printed. Whoever
wrote those must not be able to open an element, a link, an image, a code fence or a table cell, to mention a
person, or to run one of GitLab's quick actions.
"""

from __future__ import annotations

import re

from mlcicd.core.errors import redact

DEFAULT_LIMIT = 600
_ZERO_WIDTH_SPACE = "&#8203;"

# Bidirectional overrides, invisible marks and tag characters make a text read differently from what it is.
# ZWNJ and ZWJ (U+200C, U+200D) stay, some scripts are written with them.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
_TERMINAL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"[ \u00a0]+")

_ENTITIES = {ord(c): f"&#{ord(c)};" for c in "&<>\"'`*_[]()!|\\~$@#{}^"}
# Where GitHub and GitLab find references in the *rendered* text, so that an entity is not enough.
_REFERENCE = re.compile(
    r"""
    (?P<sigil>[@\#!~%$&^])(?=[\w"'{.:/-])      # @user #12 !34 ~label %milestone $snippet &epic ^alert
    | (?P<scheme>:)(?=//|[\w.+-]+:|[\w.+-]+@)  # https://  :emoji:  mailto:a@b
    | (?P<www>www)(?=\.)                       # www.example
    | (?P<ticket>\bGH)(?=-\d)                  # GH-12
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LINE_START = re.compile(r"[-+=/:>#](?=.)|\d+(?=[.)](?:\s|$))")


def clean(text: object, *, limit: int = DEFAULT_LIMIT) -> str:
    """The text on one line of at most `limit`: no control, escape or direction characters, no secrets."""
    line = str(text)
    if len(line) > 8 * limit:
        line = line[: 8 * limit]
    line = _TERMINAL_SEQUENCE.sub("", line)
    line = _CONTROL.sub(" ", line)
    line = _INVISIBLE.sub("", line)
    line = _SURROGATE.sub("\ufffd", line)
    line = redact(_SPACES.sub(" ", line).strip())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def prose(text: object, *, limit: int = DEFAULT_LIMIT) -> str:
    """The text as inline Markdown that means only itself, in a paragraph, a heading or a table cell."""
    line = clean(text, limit=limit)
    out: list[str] = []
    position = 0
    start = _LINE_START.match(line)
    if start is not None:
        # A digit can not be escaped with a backslash, an entity works for all of them.
        out.extend(f"&#{ord(character)};" for character in start.group())
        if _REFERENCE.match(line):
            out.append(_ZERO_WIDTH_SPACE)
        position = start.end()
    for match in _REFERENCE.finditer(line, position):
        out.append(_entities(line[position : match.end()]))
        out.append(_ZERO_WIDTH_SPACE)
        position = match.end()
    out.append(_entities(line[position:]))
    return "".join(out)


def code(text: object, *, limit: int = 200) -> str:
    """The text as a Markdown code span, in a table cell too; an empty text gives an empty string."""
    line = clean(text, limit=limit)
    if not line:
        return ""
    if "`" in line or "|" in line:
        # No way of writing these in a code span holds in every renderer's tables. An element is not opaque as
        # a span is: what is inside has to be as harmless as prose.
        return f"<code>{prose(line, limit=limit)}</code>"
    return f"`{line}`"


def _entities(text: str) -> str:
    return text.translate(_ENTITIES)
