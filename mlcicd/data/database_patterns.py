"""Regular expressions as RE2 reads them, in the syntax of PostgreSQL and of Python: only such as all read alike."""

from __future__ import annotations

import re

# Escapes that stand for a class; what RE2 means by them is ASCII.
_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_"}
_CONTROLS = frozenset("tnrf")
_PUNCTUATION = frozenset("\\.+*?()|[]{}^$-/_:;,!@#%&=<>~'\" ")
_PART = re.compile(r"\\.|[^\\]", re.DOTALL)
_TOKEN = re.compile(
    r"(?P<escape>\\.)"
    r"|(?P<class>\[\^?(?:\\.|[^\\\[\]])(?:\\.|[^\\\[\]])*\])"
    r"|(?P<repeat>(?:[*+?]|\{(?P<low>\d+)(?:,(?P<high>\d*))?\})\??)(?![*+?{])"
    r"|(?P<group>\((?:\?:)?(?!\?))"
    r"|(?P<plain>[^\\\[\]{}*+?(])",
    re.DOTALL,
)
_MOST_REPEATS = 255


def plain_pattern(pattern: str) -> str:
    """A pattern in RE2's syntax that must match the whole text, in what PostgreSQL (`~`) and Python (`re`) share.

    Classes are written out, because `\\d` and `.` mean other characters elsewhere; look-around, flags, POSIX classes
    and possessive or doubled repetitions are refused.

    Raises:
        ValueError: it uses what is read differently.
    """
    made: list[str] = []
    rest, repeatable = pattern, False
    while rest:
        match = _TOKEN.match(rest)
        written = _written(match, repeatable) if match else None
        if match is None or written is None:
            raise ValueError(f"the pattern {pattern} uses what databases read differently than RE2")
        made.append(written)
        repeatable = match.lastgroup not in ("repeat", "group") and match.group() not in ("|", "^")
        rest = rest[match.end() :]
    return rf"\A(?:{''.join(made)})\Z"


def _written(match: re.Match[str], repeatable: bool) -> str | None:
    """One part of a pattern; None where it is read differently, or repeats what can not be repeated."""
    text = match.group()
    if match.lastgroup == "escape":
        return _escape(text[1], inside=False)
    if match.lastgroup == "class":
        return _class(text)
    if match.lastgroup == "repeat":
        # As few as possible or as many: the same whole texts match.
        return text.removesuffix("?") or "?" if repeatable and _few(match) else None
    return {".": r"[^\n]", "$": r"\Z", "^": r"\A", "(": "(?:"}.get(text, text)


def _class(text: str) -> str | None:
    start = "[^" if text.startswith("[^") else "["
    parts = [
        _escape(part[1], inside=True) if part[0] == "\\" else part for part in _PART.findall(text[len(start) : -1])
    ]
    plain = "".join("." if part[0] == "\\" else part for part in _PART.findall(text[len(start) : -1]))
    if None in parts or any(pair in plain for pair in ("&&", "--", "~~", "||")):
        return None
    return start + "".join(part or "" for part in parts) + "]"


def _escape(char: str, *, inside: bool) -> str | None:
    if char.lower() in _CLASSES:
        if inside:
            return _CLASSES.get(char)
        return f"[{'' if char.islower() else '^'}{_CLASSES[char.lower()]}]"
    if char in ("A", "z"):
        return None if inside else {"A": r"\A", "z": r"\Z"}[char]
    return f"\\{char}" if char in _CONTROLS or char in _PUNCTUATION else None


def _few(match: re.Match[str]) -> bool:
    return all(int(number) <= _MOST_REPEATS for number in (match["low"], match["high"]) if number)
