"""Categories that the reference does not have, and those that are gone: a typo, a new product, a feed that has died."""

from __future__ import annotations

from collections.abc import Iterable

from mlcicd.core.verdict import Check, CheckStatus, Severity
from mlcicd.data.conditions import percent
from mlcicd.data.drift import DriftResult

_NAMED = 5
# With so many rows expected, that chance alone shows none is a matter of one in 150 (Poisson).
_EXPECTED = 5.0


def category_checks(
    results: Iterable[DriftResult],
    *,
    max_new: float | None = None,
    max_vanished: float | None = None,
    severity: Severity = Severity.WARN,
) -> list[Check]:
    """One check a column of categories that has new or vanished ones beyond the bounds; one that passed if none has.

    Args:
        max_new: largest share of current rows whose category is new; not looked at when None.
        max_vanished: largest share of the reference's rows whose category is gone; not looked at when None. One that
            few rows were expected of may be missing by chance, and is left out.
    """
    compared = [result for result in results if result.kind == "category" and result.js is not None]
    required = ", ".join(
        f"at most {percent(bound)} of rows in {what} categories"
        for what, bound in (("new", max_new), ("vanished", max_vanished))
        if bound is not None
    )
    checks = []
    for result in compared:
        said = []
        if max_new is not None and result.new_share > max_new:
            said.append(f"{result.new_share:.4%} of rows hold new categories ({_names(result.new)})")
        if max_vanished is not None and result.vanished_share > max_vanished and result.vanished_expected >= _EXPECTED:
            said.append(
                f"categories of {result.vanished_share:.4%} of the reference's rows are gone "
                f"({_names(result.vanished)})"
            )
        if said:
            checks.append(
                Check(
                    name=f"categories.{result.column}",
                    status=CheckStatus.FAILED,
                    severity=severity,
                    observed=max(result.new_share, result.vanished_share),
                    required=required,
                    reason="; ".join(said),
                    remedy="look at how they are written, and at the feed; a model knows nothing of new categories",
                    details={"column": result.column, "new": list(result.new), "vanished": list(result.vanished)},
                )
            )
    if checks or not compared:
        return checks
    return [
        Check(
            name="categories",
            status=CheckStatus.PASSED,
            severity=severity,
            observed=f"{len(compared)} columns of categories",
            required=required,
        )
    ]


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names[:_NAMED]) + (", ..." if names[_NAMED:] else "")
