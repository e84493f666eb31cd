"""Values as YAML that a person would write."""

from __future__ import annotations

import math
import re

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def scalar(text: str) -> str:
    """Text as a YAML scalar of one line: plain where that is safe, else quoted and escaped."""
    import yaml

    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    return yaml.safe_dump(text, default_style='"', width=math.inf, allow_unicode=True).rstrip("\n")
