"""Parity: does the server that runs answer what the model answers where it was evaluated?

The same rows are asked in one request, and the first of them one by one, as users ask.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcicd.core.verdict import Check, CheckStatus

_ONE_BY_ONE = 20
_LONGEST = 300
NAME = "parity"


def compare_answers(
    url: str,
    body: dict[str, Any],
    expected: NDArray[Any],
    *,
    tolerance: float,
    timeout_s: float = 60.0,
    token: str = "",
) -> Check:
    """Asks the server at `url` and compares.

    Args:
        url: the root of the server of the version under test.
        body: `dataframe_split` with n rows.
        expected: (n,) or (n, k) numbers or text.
        tolerance: largest |a - b| / max(1, |b|) of two numbers a (served) and b (expected).
        timeout_s: the longest one answer is waited for.
        token: sent with each request, if there is one.

    Returns:
        One check. `details` holds `rows`, `largest` (difference) and `one_by_one`, how many rows were asked singly.
    """
    from requests import RequestException, Session

    required = f"within {tolerance:g} of the evaluated model"
    split = body["dataframe_split"]
    rows = split["data"]
    singly = min(len(rows), _ONE_BY_ONE)
    asked = [(body, expected, f"{len(rows)} rows in one request")]
    for number in range(singly):
        one = {"dataframe_split": {**split, "data": [rows[number]]}}
        asked.append((one, expected[number : number + 1], f"row {number} of them by itself"))
    largest = 0.0
    try:
        with Session() as session:
            # A proxy of the environment has no business between us and the server under test.
            session.trust_env = False
            if token:
                session.headers["authorization"] = f"Bearer {token}"
            for request, wanted, what in asked:
                response = session.post(f"{url}/invocations", json=request, timeout=timeout_s)
                if response.status_code != 200:
                    return _failed(required, f"{what}: answered {response.status_code}: {_short(response.text)}")
                difference, problem = difference_of(response.json(), wanted)
                if not problem and not difference <= tolerance:
                    problem = f"the answers differ by {difference:g}"
                if problem:
                    return _failed(required, f"{what}: {problem}", observed=difference)
                largest = max(largest, difference)
    except (RequestException, ValueError) as error:
        return _failed(required, f"no answer that can be read: {_short(error)}")
    return Check(
        name=NAME,
        status=CheckStatus.PASSED,
        observed=largest,
        required=required,
        details={"rows": len(rows), "one_by_one": singly, "largest": largest},
    )


def difference_of(answered: Any, expected: NDArray[Any]) -> tuple[float, str]:
    """The largest relative difference, and what makes the two no more comparable; text that differs is infinitely far.

    Args:
        answered: the JSON value of the answer: `{"predictions": ...}`.
    """
    if not isinstance(answered, dict) or "predictions" not in answered:
        return math.inf, "the answer has no 'predictions'"
    served = _as_array(answered["predictions"])
    if served is None or served.shape != expected.shape:
        shape = "something else than rows" if served is None else f"shape {list(served.shape)}"
        return math.inf, f"the server answers {shape}, and the model shape {list(expected.shape)}"
    if not served.size:
        return math.inf, "there is no answer"
    return _numbers_apart(served, expected) if expected.dtype.kind in "biuf" else _texts_apart(served, expected)


def _texts_apart(served: NDArray[Any], expected: NDArray[Any]) -> tuple[float, str]:
    wrong = np.flatnonzero(served.astype(str) != expected.astype(str))
    return (math.inf, f"row {wrong[0]} of the request is {_short(served[wrong[0]])!r}") if wrong.size else (0.0, "")


def _numbers_apart(served: NDArray[Any], expected: NDArray[Any]) -> tuple[float, str]:
    try:
        numbers = served.astype(np.float64)
    except (TypeError, ValueError):
        return math.inf, "the server answers something else than numbers"
    wanted = expected.astype(np.float64)
    if not (np.isfinite(numbers).all() and np.isfinite(wanted).all()):
        return math.inf, "there is a NaN or an infinite number among the answers"
    return float((np.abs(numbers - wanted) / np.maximum(1.0, np.abs(wanted))).max()), ""


def _as_array(predictions: Any) -> NDArray[Any] | None:
    """Rows as MLflow's servers write them: values, lists, or records; a dictionary of columns; (n, 1) is (n,)."""
    if isinstance(predictions, dict):
        predictions = next(iter(predictions.values()), None)
    if not isinstance(predictions, list):
        return None
    rows = [list(row.values()) if isinstance(row, dict) else row for row in predictions]
    try:
        array = np.array(rows, dtype=object)
    except ValueError:
        return None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return array if array.ndim in (1, 2) else None


def _failed(required: str, reason: str, *, observed: float | None = None) -> Check:
    return Check(
        name=NAME,
        status=CheckStatus.FAILED,
        observed=observed if observed is None or math.isfinite(observed) else None,
        required=required,
        reason=reason,
        remedy="compare the packages of the server's interpreter with those of the evaluation, and how the signature "
        "converts what JSON carries; deploy.environments.<name>.parity has the tolerance",
    )


def _short(value: object) -> str:
    return " ".join(str(value).split())[:_LONGEST]
