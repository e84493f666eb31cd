"""Rules as conditions: what is counted, what is allowed, and how to say it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from mlcicd.core.verdict import Check, CheckStatus, Severity

_INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
    | {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
)


def kind_of(engine_type: str) -> str:
    """The schema's name for an engine type."""
    base = engine_type.split("(", maxsplit=1)[0]
    if engine_type.endswith("]"):
        return "list"
    if base in _INTEGERS:
        return "int"
    if base in ("FLOAT", "DOUBLE"):
        return "float"
    if base.startswith("TIMESTAMP"):
        return "timestamp"
    named = {
        "DECIMAL": "decimal",
        "BOOLEAN": "bool",
        "DATE": "date",
        "TIME": "time",
        "BLOB": "binary",
        "MAP": "struct",
        "STRUCT": "struct",
    }
    return named.get(base, "string")


def percent(share: float) -> str:
    """A share as it was asked for: `1%`, not `1.0000%`."""
    return f"{100 * share:.10g}%"


@dataclass(frozen=True)
class RowRule:
    """A condition that rows must meet.

    Attributes:
        name: `column.rule`, or `rule.<name>`.
        columns: what to show of a row that violates it.
        applies: SQL, true for the rows that are looked at.
        valid: SQL, true for the rows that obey; NULL violates.
        allowed: the largest share of violations among the rows looked at.
        required: the rule in words.
        violation: what one violation is, in words, plural.
        of: SQL of the one value that the rule is about, if there is one: the rule applies where it is not NULL, and
            `valid` is not true where it is. Such rules are counted without asking `applies` of each row.
        range_of: SQL whose smallest and largest values belong into the report.
        vacuous: what it means when the rule applies to no row.
    """

    name: str
    columns: tuple[str, ...]
    applies: str
    valid: str
    allowed: Fraction
    required: str
    violation: str
    severity: Severity
    remedy: str
    of: str = ""
    range_of: str = ""
    vacuous: CheckStatus = CheckStatus.SKIPPED

    @property
    def violated(self) -> str:
        """SQL, true for the rows that violate the rule, false for all others."""
        return f"{self.applies} AND ({self.valid}) IS NOT TRUE"


@dataclass(frozen=True)
class UniqueRule:
    """Columns whose combination identifies a row. NULLs are left to the rules about missing values."""

    name: str
    columns: tuple[str, ...]
    severity: Severity


@dataclass
class Rules:
    """What a schema asks of one table: row conditions, uniqueness, and what needed no reading."""

    rows: list[RowRule] = field(default_factory=list)
    unique: list[UniqueRule] = field(default_factory=list)
    settled: list[Check] = field(default_factory=list)
