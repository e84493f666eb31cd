"""Regular expressions as RE2 reads them, in Java's syntax: only such as both read alike."""

from __future__ import annotations

import re

# What RE2 and Java read differently, outside and inside of brackets.
_ESCAPES = frozenset("dDwWbBAztnrf\\.+*?()|[]{}^$-/_:;,!@#%&=<>~'\" ")
_GROUP = re.compile(r"\(\?(?!:|i\)|s\)|is\)|si\))")


def java_pattern(pattern: str) -> str:
    """A pattern in RE2's syntax that must match the whole text, in Java's.

    Raises:
        ValueError: it uses what the two read differently.
    """
    refused = ValueError(f"the pattern {pattern} uses what Java's regular expressions read differently")
    if _GROUP.search(pattern):
        raise refused
    inside, position = False, 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            position += 1
            if position >= len(pattern) or pattern[position] not in _ESCAPES:
                raise refused
        elif inside:
            if char == "[" or pattern[position : position + 2] in ("&&", "--", "~~"):
                raise refused
            inside = char != "]"
        elif char == "[":
            inside = True
            if pattern[position + 1 : position + 2] == "]" or pattern[position + 1 : position + 3] == "^]":
                raise refused
        elif char in "*+?}" and pattern[position + 1 : position + 2] == "+":
            raise refused  # possessive in Java, an error or a repetition in RE2
        position += 1
    # d: a line ends with \n alone; u: letters beyond ASCII have two cases, too.
    flags = "(?du)" if "(?i" in pattern or "(?si" in pattern else "(?d)"
    return rf"{flags}\A(?:{pattern})\z"
