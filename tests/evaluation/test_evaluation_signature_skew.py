"""A signature against the data, one difference at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcicd.evaluation.signature_change import Column
from mlcicd.evaluation.signature_skew import skew

FEATURES = {"a": "float", "b": "int", "c": "string", "d": "timestamp", "e": "bool"}
INPUTS = [Column("a", "double"), Column("b", "long"), Column("c", "string"), Column("d", "datetime")]
INPUTS.append(Column("e", "boolean"))


def test_the_same_columns_are_no_skew() -> None:
    assert skew(INPUTS, FEATURES, {}) == []
    assert skew([Column("#1", "tensor of float64, shape [-1, 5]")], FEATURES, {}) == []


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("a", "long", "a fraction or a gap is refused"),
        ("b", "string", "'b' is int in the data and string"),
        ("c", "double", "'c' is string in the data and double"),
        ("d", "string", "'d' is timestamp"),
        ("e", "long", "'e' is bool"),
    ],
)
def test_another_type_is_named(name: str, kind: str, said: str) -> None:
    (problem,) = skew([Column(c.name, kind if c.name == name else c.kind) for c in INPUTS], FEATURES, {})
    assert said in problem


def test_what_the_data_lacks_and_what_nobody_tried() -> None:
    (gone,) = skew([*INPUTS, Column("z", "double")], FEATURES, {})
    assert "requires 'z'" in gone
    assert skew([*INPUTS, Column("z", "double", required=False)], FEATURES, {}) == []
    optional = [Column("a", "double", required=False), *INPUTS[1:]]
    assert "was never tried" in skew(optional, FEATURES, {"a": 0})[0]
    assert skew(optional, FEATURES, {"a": 3}) == []


@given(st.permutations(INPUTS))
def test_order_is_told_exactly_when_it_differs(inputs: list[Column]) -> None:
    problems = skew(inputs, FEATURES, {})
    assert bool(problems) == ([c.name for c in inputs] != list(FEATURES))
    if problems:
        first = next(i for i, c in enumerate(inputs) if c.name != list(FEATURES)[i])
        assert f"the signature has {inputs[first].name!r}" in problems[0]
