"""Hints at personal data: patterns in values, with their checksums where they have some, and names of columns.

Values are never shown: a report that warns of an address must not be where it leaks.
"""

# ruff: noqa: S608  (identifiers go through `quote`, text through `literal`; values never become SQL)
from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.conditions import kind_of
from mlcicd.data.row_numbers import at_hand, below, bound
from mlcicd.data.source import Source, literal, quote

SAMPLE = 100_000
_CONFIRMED = 1_000
_COLUMNS_PER_PASS = 40
_NAMES = re.compile(
    r"(?:^|_)(e_?mail|phone|mobile|fax|birth(?:day|date)?|dob|ssn|passport|iban|"
    r"(?:first|last|middle|full|given|family|sur)_?name|surname|street|address|postcode|zip_?code|"
    r"ip_?address|credit_?card|license_?plate|national_?id|tax_?id)(?:$|_)",
    re.IGNORECASE,
)
# Where one word of a name ends: `customerEmail`, `zip-code`.
_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\s.-]")
_MOSTLY = 0.5


@dataclass(frozen=True)
class _Kind:
    """One kind of personal data.

    Attributes:
        pattern: RE2, of the whole text (`whole`) or of any part of it.
        confirm: whether the checksums of what matched are looked at, too.
        least: the smallest share of values that must match; one value is enough where it is 0.
    """

    name: str
    pattern: str
    whole: bool = True
    confirm: bool = False
    least: float = 0.0


KINDS = (
    _Kind("e-mail addresses", r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}", whole=False),
    _Kind("telephone numbers", r"(\+|00)[1-9]([ ().-]?[0-9]){7,14}", least=0.01),
    _Kind("IBANs", r"[A-Z]{2}[0-9]{2}( ?[0-9A-Z]){11,30}", confirm=True),
    _Kind("payment card numbers", r"[2-6]([ -]?[0-9]){12,18}", confirm=True, least=0.01),
    _Kind("US social security numbers", r"[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}", least=0.01),
    _Kind("IP addresses", r"((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])", least=0.01),
)


def personal_checks(
    source: Source, *, allow: Collection[str] = (), severity: Severity = Severity.WARN, sample: int = SAMPLE
) -> list[Check]:
    """One check a column that seems to hold personal data; one that passed if there is none.

    Text is looked at for all kinds, whole numbers for payment cards. Of more than `sample` rows, about so many are
    looked at: those whose number's hash says so, so that the same table gives the same answer.

    Args:
        allow: columns that may hold it.

    Raises:
        InputError: the data can not be read.
    """
    required = "no sign of personal data"
    columns = {n: kind_of(t) for n, t in source.columns.items() if n not in allow}
    found = _matches(source, [n for n, kind in columns.items() if kind in ("string", "int")], sample)
    checks = []
    for name in columns:
        reasons = [f"{count:,} of {looked:,} values look like {kind}" for kind, count, looked in found.get(name, [])]
        if not reasons and hinted(name):
            reasons = ["its name says so"]
        if reasons:
            checks.append(
                Check(
                    name=f"personal.{name}",
                    status=CheckStatus.FAILED,
                    severity=severity,
                    observed=reasons[0],
                    required=required,
                    reason=f"{name!r} may hold personal data: {'; '.join(reasons)}",
                    remedy="drop or hash the column before training; if it may be there, name it under "
                    "data.checks.personal.allow",
                    details={"column": name, "kinds": {kind: count for kind, count, _ in found.get(name, [])}},
                )
            )
    return checks or [
        Check(
            name="personal",
            status=CheckStatus.PASSED,
            severity=severity,
            observed=f"{len(columns)} columns",
            required=required,
        )
    ]


def hinted(name: str) -> bool:
    """Whether a column's name is one of personal data."""
    return _NAMES.search(_BETWEEN_WORDS.sub("_", name)) is not None


def _matches(source: Source, names: list[str], sample: int) -> dict[str, list[tuple[str, int, int]]]:
    """Column to (kind, values that match, values looked at), for the kinds that are found."""
    limit = bound(sample, source.rows)
    found: dict[str, list[tuple[str, int, int]]] = {}
    for start in range(0, len(names), _COLUMNS_PER_PASS):
        block = names[start : start + _COLUMNS_PER_PASS]
        parts, asked = [], []
        for name in block:
            text = f"CAST({quote(name)} AS VARCHAR)"
            parts.append(f"count({quote(name)})")
            for kind in _asked_of(kind_of(source.columns[name])):
                test = "regexp_full_match" if kind.whole else "regexp_matches"
                match = f"{test}({text}, {literal(kind.pattern)})"
                parts.append(f"count_if({match})")
                # Which of the matches are confirmed does not depend on the order of the rows.
                parts.append(f"min({text}, {_CONFIRMED}) FILTER (WHERE {match})" if kind.confirm else "NULL")
                asked.append((name, kind))
        here = at_hand(source, block, limit)
        values = list(here.fetch(f"SELECT {', '.join(parts)} FROM {here.numbered} WHERE {below(limit)}")[0])
        looked = 0
        before = ""
        for name, kind in asked:
            if name != before:
                looked, before = int(values.pop(0) or 0), name
            count, examples = int(values.pop(0) or 0), values.pop(0)
            if count and kind.confirm:
                good = sum(_CHECKSUMS[kind.name](example) for example in examples)
                # A tenth of all digits pass Luhn's test by chance.
                count = round(count * good / len(examples)) if good >= _MOSTLY * len(examples) else 0
            if count and count >= kind.least * looked:
                found.setdefault(name, []).append((kind.name, count, looked))
    return found


def _asked_of(kind: str) -> tuple[_Kind, ...]:
    return KINDS if kind == "string" else tuple(one for one in KINDS if one.name == "payment card numbers")


def luhn(text: str) -> bool:
    """Whether the digits of a text pass the checksum of payment cards (ISO/IEC 7812-1)."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def iban(text: str) -> bool:
    """Whether a text passes the checksum of international bank account numbers (ISO 13616)."""
    plain = text.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


_CHECKSUMS = {"payment card numbers": luhn, "IBANs": iban}
