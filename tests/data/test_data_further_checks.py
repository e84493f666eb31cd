"""The checks of `data.checks` beside leakage and drift, against slow readings in Python."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcicd.core.errors import ConfigError, InputError
from mlcicd.core.verdict import Check
from mlcicd.data.column_profile import hashed
from mlcicd.data.constants import constant_checks
from mlcicd.data.drift import drift
from mlcicd.data.new_categories import category_checks
from mlcicd.data.origins import origin_checks
from mlcicd.data.personal import hinted, iban, luhn, personal_checks
from mlcicd.data.population import population_checks
from mlcicd.data.profile import Profile, profile
from mlcicd.data.serving_examples import read_requests, serving_checks
from mlcicd.data.source import Source, open_source

LETTERS = st.sampled_from("abc")


def table(path: Path, **columns: Any) -> Source:
    pq.write_table(pa.table(columns), path)
    return open_source(path)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@settings(deadline=None, max_examples=12)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.sampled_from([0.0, 1.0, 1.0000001, math.nan, math.inf]),
            st.none() | st.sampled_from(["a", "b", "é'"]),
            st.none() | st.integers(0, 1),
        ),
        min_size=1,
        max_size=12,
    ),
    share=st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_constant_columns_agree_with_python(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], share: float
) -> None:
    path = tmp_path_factory.mktemp("c") / "t.parquet"
    x, s, d = (list(column) for column in zip(*rows, strict=True))
    columns = {"x": pa.array(x, pa.float64()), "s": pa.array(s, pa.string()), "d": pa.array(d, pa.timestamp("s"))}
    source = table(path, **columns)
    checks = by_name(constant_checks(source, profile(source), max_share=share))
    expected = {}
    for name, values in (("x", x), ("s", s), ("d", d)):
        plain = [None if isinstance(v, float) and math.isnan(v) else v for v in values]
        most = Counter(plain).most_common(1)[0][1]
        if most * 10 > round(share * 10) * len(rows):
            expected[f"constant.{name}"] = most
    assert {name: check.details["rows"] for name, check in checks.items() if check.status == "failed"} == expected
    assert expected or checks["constant"].status == "passed"


@settings(deadline=None, max_examples=12)
@given(
    rows=st.lists(st.none() | LETTERS, min_size=1, max_size=200),
    groups=st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 1000)), min_size=1, max_size=6),
    limit=st.sampled_from([0.05, 0.2, 0.5]),
)
def test_weighted_population_agrees_with_python(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], groups: list[Any], limit: float
) -> None:
    folder = tmp_path_factory.mktemp("p")
    source = table(folder / "t.parquet", g=pa.array(rows, pa.string()))
    people = table(folder / "p.parquet", g=[g for g, _ in groups], v=[w for _, w in groups])
    got = by_name(population_checks(source, people, weight="v", max=limit))["population.g"]
    present, whole = [r for r in rows if r is not None], sum(w for _, w in groups)
    if not present or not whole:
        assert got.status == "failed" and got.observed is None
        return
    names = {*present, *(g for g, _ in groups)}
    distance = (
        sum(abs(present.count(n) / len(present) - sum(w for g, w in groups if g == n) / whole) for n in names) / 2
    )
    assert got.observed == pytest.approx(distance, abs=1e-9)
    if abs(distance - limit) > 1e-9:
        assert (got.status == "passed") == (distance < limit)
    assert got.status != "failed" or distance - got.details["noise"] > limit


def test_population_as_a_sample_finds_the_group_that_is_missing(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    people = {"age": draw.normal(45, 15, 4000), "sex": draw.choice(["f", "m"], 4000), "y": draw.integers(0, 2, 4000)}
    ours = {"age": draw.normal(45, 15, 3000), "sex": ["m"] * 3000, "y": draw.integers(0, 2, 3000)}
    population, train = table(tmp_path / "p.parquet", **people), table(tmp_path / "t.parquet", **ours)
    checks = by_name(population_checks(train, population, max=0.1))
    assert {n: c.status for n, c in checks.items()} == {
        "population.sex": "failed",
        "population.age": "passed",
        "population.y": "passed",
    }
    assert "only in the population: f" in checks["population.sex"].reason
    with pytest.raises(ConfigError, match=r"'agee'.*did you mean 'age'"):
        population_checks(train, population, columns=["agee"])


@settings(deadline=None, max_examples=12)
@given(
    before=st.lists(LETTERS, min_size=1, max_size=100),
    after=st.lists(st.sampled_from("abcde"), min_size=1, max_size=100),
    bound=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_new_and_vanished_categories_agree_with_python(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], after: list[str], bound: float
) -> None:
    folder = tmp_path_factory.mktemp("n")
    reference = profile(table(folder / "a.parquet", s=before))
    results = drift(Profile.from_json(reference.to_json()), table(folder / "b.parquet", s=after))
    new = sum(v not in before for v in after)
    gone = [v for v in before if v not in after]
    most = max(Counter(gone).values(), default=0)
    expected = new > bound * len(after) or (len(gone) > bound * len(before) and most * len(after) >= 5 * len(before))
    checks = category_checks(results, max_new=bound, max_vanished=bound)
    assert [c.status for c in checks] == ["failed" if expected else "passed"]


@pytest.mark.parametrize(("rows", "status"), [(49, "passed"), (50, "failed")])
def test_a_category_that_chance_alone_may_have_left_out_has_not_vanished(
    tmp_path: Path, rows: int, status: str
) -> None:
    reference = profile(table(tmp_path / "a.parquet", s=["a"] * 90 + ["b"] * 10))
    results = drift(reference, table(tmp_path / "b.parquet", s=["a"] * rows))
    assert [c.status for c in category_checks(results, max_vanished=0.01)] == [status]


@settings(deadline=None, max_examples=12)
@given(rows=st.lists(st.tuples(st.none() | LETTERS, st.integers(0, 2), st.booleans()), min_size=1, max_size=80))
def test_sources_agree_with_python(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = tmp_path_factory.mktemp("o") / "t.parquet"
    s, x, y = (list(column) for column in zip(*rows, strict=True))
    source = table(path, s=pa.array(s, pa.string()), x=x, y=y)
    checks = by_name(origin_checks(source, "s", None, target="y", features=["x"], max_rise=0.1))
    assert checks["sources.s"].status == "skipped"
    labels = {value: {b for _, a, b in rows if a == value} for value in set(x)}
    torn = [row for row in rows if len(labels[row[1]]) > 1]
    got = checks["sources.s.conflicts"]
    assert got.details["rows"] == len(torn)
    excess = [sum(r[0] == n for r in torn) / len(torn) - s.count(n) / len(s) for n in set(s)] if torn else [0.0]
    if abs(max(excess) - 0.1) > 1e-9:
        assert (got.status == "failed") == (len(torn) >= 30 and max(excess) > 0.1)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_source_that_floods_the_data_is_named(tmp_path: Path, hidden: bool) -> None:
    before = ["shop"] * 600 + ["app"] * 400
    reference = profile(table(tmp_path / "a.parquet", s=before), sensitive=["s"] if hidden else [])
    now = ["shop"] * 500 + ["app"] * 200 + ["bot"] * 300
    source = table(tmp_path / "b.parquet", s=now, x=list(range(1000)), y=[0] * 1000)
    options = {"target": "y", "features": ["x"], "max_rise": 0.1, "hidden": hidden}
    got = origin_checks(source, "s", reference.columns["s"], **options)[0]
    assert got.status == "failed" and got.observed == pytest.approx(0.3)
    assert (hashed("bot") if hidden else "bot") in got.reason
    assert "shop" not in got.reason and ("bot" not in got.reason or not hidden)
    same = origin_checks(
        table(tmp_path / "c.parquet", s=before, x=before, y=before), "s", reference.columns["s"], **options
    )
    assert same[0].status == "passed"


@given(digits=st.lists(st.integers(0, 9), min_size=13, max_size=19))
def test_luhn_agrees_with_the_textbook(digits: list[int]) -> None:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = digit * 2 if place % 2 else digit
        total += value - 9 if value > 9 else value
    assert luhn("-".join(map(str, digits))) == (total % 10 == 0 and len(set(digits)) > 1)


PERSONAL = {
    "mail": (["see a@b.example", "none"], "e-mail"),
    "call": (["+49 30 901820", "0049 30 901820"], "telephone"),
    "bank": (["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"], "IBAN"),
    "card": ([4111111111111111, 5500005555555559], "card"),
    "host": (["192.168.0.1", "10.0.0.255"], "IP addresses"),
    "ssn_like": (["078-05-1120", "219-09-9999"], "social security"),
}
HARMLESS = {
    "order": ["DE00 3704 0044 0532 0130 00", "AB12CDEF34567890123"],  # no checksum of a bank account
    "number": [4111111111111112, 5500005555555550],
    "version": ["1.2.3.400", "10.20.30"],
    "mention": ["user@", "@home"],
    "tailnumber": ["N14228", "N24211"],
}


def test_personal_data_is_found_and_not_shown(tmp_path: Path) -> None:
    columns = {name: values for name, (values, _) in PERSONAL.items()}
    checks = by_name(personal_checks(table(tmp_path / "t.parquet", **columns, **HARMLESS), allow=["host"]))
    assert set(checks) == {f"personal.{name}" for name in PERSONAL if name != "host"}
    for name, (values, word) in PERSONAL.items():
        if name != "host":
            assert word in checks[f"personal.{name}"].reason
            assert not any(str(value) in checks[f"personal.{name}"].model_dump_json() for value in values)
    harmless = personal_checks(table(tmp_path / "h.parquet", **HARMLESS))
    assert [check.status for check in harmless] == ["passed"]


@settings(deadline=None, max_examples=12)
@given(values=st.lists(st.sampled_from(["a@b.cd", "x", "a@b", "q r.s@t-u.vw!", ""]), max_size=20))
def test_mail_addresses_are_counted_as_python_counts_them(
    tmp_path_factory: pytest.TempPathFactory, values: list[str]
) -> None:
    source = table(tmp_path_factory.mktemp("e") / "t.parquet", s=pa.array(values, pa.string()))
    expected = sum(re.search(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}", value) is not None for value in values)
    (got,) = personal_checks(source)
    assert got.details.get("kinds", {}) == ({"e-mail addresses": expected} if expected else {})


def test_a_sample_is_the_same_every_time(tmp_path: Path) -> None:
    values = [f"user{i}@example.org" if i % 3 else f"{i}" for i in range(5000)]
    source = table(tmp_path / "t.parquet", s=values)
    first, again = (personal_checks(source, sample=500)[0] for _ in range(2))
    assert first == again
    assert 50 < first.details["kinds"]["e-mail addresses"] < 3000


@pytest.mark.parametrize("name", ["first_name", "customerEmail", "home_phone", "DOB", "Street", "zip-code"])
def test_names_that_say_so(name: str) -> None:
    assert hinted(name)


@pytest.mark.parametrize("name", ["name", "emails_sent_ratio", "birthrate", "streetcar", "faxed", "origin", "mobility"])
def test_names_that_do_not(name: str) -> None:
    assert not hinted(name)


def test_iban_checksum() -> None:
    assert iban("FR14 2004 1010 0505 0001 3M02 606") and not iban("FR15 2004 1010 0505 0001 3M02 606")


def requests_file(path: Path, *bodies: Any) -> Path:
    path.write_text("\n".join(json.dumps(body) for body in bodies) + "\n")
    return path


def test_requests_like_the_training_data_pass_in_every_form(tmp_path: Path) -> None:
    source = table(tmp_path / "t.parquet", a=[0.5, 1.5, None] * 10, b=["x", "y", "z"] * 10, y=[0, 1, 1] * 10)
    bodies = [
        {"dataframe_records": [{"a": 0.25, "b": "x"}]},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "y"], [None, "z"]]}},
        {"inputs": {"a": [0.75], "b": ["x"]}},
        {"instances": [{"a": 3.5, "b": "z"}]},
    ]
    found = read_requests(requests_file(tmp_path / "r.jsonl", *bodies))
    assert len(found.rows) == 5
    checks = serving_checks(source, ["a", "b"], found)
    assert {c.name: (c.status, c.reason) for c in checks} == {
        f"serving.{name}": ("passed", "") for name in ("columns", "types", "order", "defaults")
    }


def test_each_skew_is_named(tmp_path: Path) -> None:
    n = 500
    source = table(tmp_path / "t.parquet", a=[i / 7 for i in range(n)], b=["x", "y"] * (n // 2), c=list(range(n)))
    split = {"columns": ["b", "a"], "data": [["x", -999.0]] * 8 + [["y", 1.5]]}
    strings = [{"a": "1.5", "b": "x", "c": 1.5, "d": 1}]
    path = requests_file(tmp_path / "r.jsonl", {"dataframe_split": split}, {"dataframe_records": strings})
    checks = {c.name: c.reason for c in serving_checks(source, ["a", "b", "c"], read_requests(path))}
    assert "9 of 10 rows do not send 'c'" in checks["serving.columns"] and "'d'" in checks["serving.columns"]
    assert "'a' is float" in checks["serving.types"] and "'c' is int" in checks["serving.types"]
    assert "has 'a', requests have 'b'" in checks["serving.order"]
    assert checks["serving.defaults"] == "80% of requests have -999.0 as 'a', and 0.00% of the training rows"


def test_requests_for_a_column_that_training_never_had_values_of(tmp_path: Path) -> None:
    source = table(tmp_path / "t.parquet", a=pa.array([None] * 9, pa.float64()))
    path = requests_file(tmp_path / "r.jsonl", *[{"inputs": {"a": [1.5]}}] * 6)
    checks = {c.name: c.reason for c in serving_checks(source, ["a"], read_requests(path))}
    assert checks["serving.defaults"] == "100% of requests have 1.5 as 'a', and 0.00% of the training rows"


def test_what_is_no_request_is_told_with_its_line(tmp_path: Path) -> None:
    path = requests_file(tmp_path / "r.jsonl", {"inputs": [[1, 2]]}, {"dataframe_split": {"columns": ["a"]}})
    with pytest.raises(InputError, match=r"r\.jsonl:2"):
        read_requests(path)
    tensors = read_requests(requests_file(path, {"inputs": [[1, 2]]}))
    (got,) = serving_checks(table(tmp_path / "t.parquet", a=[1]), ["a"], tensors)
    assert got.status == "skipped"
