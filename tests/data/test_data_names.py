"""Columns may be named as anything in our queries is: what is found does not depend on their names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mlcicd.data.checks import run_checks
from mlcicd.data.drift import drift
from mlcicd.data.label_quality import label_checks
from mlcicd.data.leakage import leakage_checks
from mlcicd.data.profile import profile
from mlcicd.data.schema import parse_schema
from mlcicd.data.source import Source, open_source

# Aliases of tables and columns in the queries.
TAKEN = (
    "value", "t", "n", "h", "cell", "count", "row", "rows", "label", "labelled", "fold", "side", "k0", "c0", "last",
    "unknown", "data", "train", "holdout", "border", "entry", "column0", "span", "low", "high",
)  # fmt: skip
ROWS = 400


def columns(names: list[str], seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for place, name in enumerate(names):
        if place % 3 == 0:
            found[name] = random.integers(0, 5, ROWS).astype(str)
        elif place % 3 == 1:
            found[name] = random.normal(size=ROWS)
        else:
            found[name] = random.integers(0, 300, ROWS)
    # Some labels are wrong, so that there are rows to show.
    found["y"] = np.where((found[names[1]] > 0) ^ (random.random(ROWS) < 0.05), "a", "b")
    return found


def tables(folder: Path, names: list[str], ending: str) -> tuple[Source, Source]:
    made = []
    for seed, part in enumerate(("one", "other")):
        path = folder / f"{part}.{ending}"
        table = pa.table(columns(names, seed))
        pq.write_table(table, path) if ending == "parquet" else pyarrow.csv.write_csv(table, path)
        made.append(open_source(path))
    return made[0], made[1]


def found(folder: Path, names: list[str], ending: str) -> str:
    folder.mkdir()
    train, holdout = tables(folder, names, ending)
    key, time = names[1], names[2]
    rules = {names[2]: {"unique": True, "max": 200, "sensitive": True}, names[0]: {"in": ["0", "1"], "unique": True}}
    schema = parse_schema(json.dumps({"version": 1, "columns": rules}))
    before, now = profile(train, target="y"), profile(holdout, target="y", like=profile(train, target="y"))
    documents = [
        before.to_json(),
        *(repr(result) for result in drift(before, now)),
        *(check.model_dump() for check in run_checks(train, schema)),
        *(check.model_dump() for check in leakage_checks(train, holdout, keys=[key], time=time, target="y")),
        *(check.model_dump() for check in label_checks(train, "y", names, max_share=0.0)),
    ]
    return json.dumps(documents, default=str, sort_keys=True)


@pytest.mark.parametrize(("ending", "turned"), [("parquet", TAKEN), ("csv", [name.title() for name in TAKEN[::-1]])])
def test_what_is_found_does_not_depend_on_the_names_of_columns(tmp_path: Path, ending: str, turned: list[str]) -> None:
    plain = [f"zz{place:02}" for place in range(len(turned))]
    by_name = dict(zip(plain, turned, strict=True))
    theirs = found(tmp_path / "taken", list(turned), ending)
    ours = found(tmp_path / "plain", plain, ending).replace("plain", "taken")
    assert words(theirs) == words(re.sub(r"zz\d\d", lambda match: by_name[match[0]], ours))


def words(text: str) -> list[str]:
    """Sorted: what is equal otherwise stands in the order of the names."""
    return sorted(re.findall(r"[^\s\"',{}\[\]()/]+", text))
