"""Where a signature and the data that a model was judged on disagree: what a service would be sent otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlcicd.evaluation.signature_change import Column

# MLflow's types that take a kind of column without losing anything.
_TAKE: dict[str, frozenset[str]] = {
    "int": frozenset({"integer", "long", "float", "double"}),
    "float": frozenset({"float", "double"}),
    "decimal": frozenset({"float", "double"}),
    "bool": frozenset({"boolean"}),
    "string": frozenset({"string"}),
    "date": frozenset({"datetime"}),
    "timestamp": frozenset({"datetime"}),
    "binary": frozenset({"binary"}),
}
_WHOLE = ("integer", "long")


def skew(inputs: Sequence[Column], features: Mapping[str, str], missing: Mapping[str, int]) -> list[str]:
    """Where requests by the signature would differ from rows of the data, in sentences; none when nowhere.

    Args:
        inputs: of the signature; those without names go by place, and nothing can be said of them.
        features: name to kind (`int`, `float`, `string`, ...), as the model was given them.
        missing: name to the number of rows that lack a value.
    """
    named = [column for column in inputs if not column.name.startswith("#")]
    if len(named) < len(inputs):
        return []
    problems = [
        f"the signature requires {column.name!r}, which the data does not have"
        for column in named
        if column.required and column.name not in features
    ]
    for column in named:
        kind = features.get(column.name, "")
        if kind in _TAKE and column.kind not in _TAKE[kind]:
            why = ": a fraction or a gap is refused" if kind == "float" and column.kind in _WHOLE else ""
            problems.append(f"{column.name!r} is {kind} in the data and {column.kind} in the signature{why}")
        if not column.required and column.name in features and not missing.get(column.name):
            problems.append(
                f"{column.name!r} is optional in the signature, and no row of the data lacks it: "
                "what is filled in for it was never tried"
            )
    sent = [column.name for column in named if column.name in features]
    given = [name for name in features if name in sent]
    if sent != given:
        place = next(i for i, pair in enumerate(zip(sent, given, strict=True)) if pair[0] != pair[1])
        problems.append(
            f"where the data has {given[place]!r}, the signature has {sent[place]!r}: "
            "a client that goes by place is wrong"
        )
    return problems
