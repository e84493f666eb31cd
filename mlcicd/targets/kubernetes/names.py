"""Names that a cluster takes, from names that people gave."""

from __future__ import annotations

import hashlib
import re

# RFC 1035, which Services keep to: a letter first, at most 63 characters. What follows a name of ours (KServe's
# `-predictor`, the hash of a Deployment's pods) needs room, too.
_LONGEST = 48
_HASH = 10


def dns_label(*parts: str) -> str:
    """One DNS label from one or several names: readable, and different names never give the same one.

    Where a part had to be changed, or all are too long, a hash of what was given follows. Parts are joined with two
    hyphens, and none that is left as it is contains two.

    Args:
        parts: any text, such as the names of a model and of an environment.
    """
    clean = [_clean(part) for part in parts]
    text = "--".join(clean)
    if list(parts) == clean and len(text) <= _LONGEST and all(parts) and text[0].isalpha():
        return text
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    head = text.strip("-")
    head = head if head[:1].isalpha() else f"m-{head}"
    return f"{head[: _LONGEST - _HASH - 2].rstrip('-')}--{digest}"


def _clean(part: str) -> str:
    """Lower case letters, digits and single hyphens; may be empty."""
    return re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")
