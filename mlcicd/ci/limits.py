"""Text that has to fit: whole lines, whole characters, and no element left open."""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_CUT_NOTE = "\n\n… cut here: the text is longer than the host takes. The report has all of it.\n"


def encodable(text: str) -> str:
    """The text with lone surrogates replaced, so that it can be written as UTF-8."""
    return _SURROGATE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """The text on one line without control characters."""
    return " ".join(_CONTROL.sub(" ", encodable(text)).split())


def cut_markdown(text: str, limit_bytes: int) -> str:
    """The text, or its first whole lines with a note that there was more.

    Elements `<details>` that the cut left open are closed: what another step appends must not be folded.
    An empty string when not even the note fits.
    """
    text = encodable(text)
    data = text.encode()
    if len(data) <= limit_bytes:
        return text
    room = limit_bytes - len(_CUT_NOTE.encode())
    while room > 0:
        kept = data[:room].decode(errors="ignore")
        kept = kept[: kept.rfind("\n") + 1]
        still_open = kept.count("<details>") - kept.count("</details>")
        result = kept + "\n</details>\n" * max(0, still_open) + _CUT_NOTE
        if len(result.encode()) <= limit_bytes:
            return result
        room -= 1_000
    return ""
