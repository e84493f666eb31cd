"""Values that try to leave the place they were written to."""

from __future__ import annotations

import random

PIECES = [
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\x00",
    "\x0b\x0c\x85\u2028\u2029",
    "\x1b[0Ksection_start:0:x\r",
    "\ud800",
    "\ufeff",
    "=",
    "<<",
    "EOF",
    "\nEOF\n",
    "name<<EOF\nx\nEOF",
    "\nPATH=/evil\n",
    "\nmlcicd_0\n",
    "%",
    "%0A",
    "%25",
    "%3A",
    ":",
    "::",
    "\n::error::x",
    "::set-output name=x::y",
    "::add-mask::a",
    "::stop-commands::x",
    "::endgroup::",
    "\n  ::warning file=x::y\n",
    "##[error]x",
    "##[add-path]/evil",
    "##[",
    ",",
    ",title=evil",
    ",file=/etc/passwd",
    ";",
    "]",
    "'",
    '"',
    "$(id)",
    "${{ github.token }}",
    " ",
    "\t",
    "a",
    "roc_auc",
    "航班",
    "🛫",
    "-->",
    "<!-- mlcicd:report -->",
    "<script>",
]


def hostile(rng: random.Random) -> str:
    """A random value of none to ten pieces."""
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 10)))
