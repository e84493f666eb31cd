"""Peers of benchmarks/data.py, run by the interpreter of `.venv-bench`: the same forty rules, and the same drift.

    python benchmarks/data_peers.py TASK FOLDER SUFFIX

Prints one JSON object: wall s, CPU s and peak MiB of the task (imports are not timed), and its answer: rules in all and
failed ones, or the drift of each column. The rules: twenty columns are not null (n0 to n7 in a share of rows), twelve
have a range, four a set of values, id is unique, text matches a pattern and has a length, and i0 and n6 a bound.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["GX_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
warnings.simplefilter("ignore")

NUMBERS = [f"n{i}" for i in range(8)]
WHOLE = [f"i{i}" for i in range(4)]
CATEGORIES = [f"c{i}" for i in range(4)]
MEMBERS = [f"v{i}" for i in range(19)]
PRESENT = ["id", "t", *WHOLE, *CATEGORIES, "text", "label"]
PATTERN = "^[0-9a-f]{32}$"


def peak_mib() -> float:
    """Peak memory of this process; where the kernel tells it apart, without what the parent had when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_pandas(file: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, parse_dates=["t"])


def read_polars(file: Path) -> Any:
    import polars as pl

    return pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_csv(file, try_parse_dates=True)


def great_expectations(file: Path) -> dict[str, int]:
    import great_expectations as gx
    import great_expectations.expectations as gxe

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    rules = [gxe.ExpectColumnValuesToNotBeNull(column=n) for n in PRESENT]
    rules += [gxe.ExpectColumnValuesToNotBeNull(column=n, mostly=0.9) for n in NUMBERS]
    rules += [gxe.ExpectColumnValuesToBeBetween(column=n, min_value=-100, max_value=200, mostly=0.99) for n in NUMBERS]
    rules += [gxe.ExpectColumnValuesToBeBetween(column=n, min_value=0, max_value=9990) for n in WHOLE]
    rules += [gxe.ExpectColumnValuesToBeInSet(column=n, value_set=MEMBERS) for n in CATEGORIES]
    rules += [
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        gxe.ExpectColumnValuesToMatchRegex(column="text", regex=PATTERN),
        gxe.ExpectColumnValueLengthsToEqual(column="text", value=32),
        gxe.ExpectColumnValuesToBeBetween(column="i0", max_value=10),
        gxe.ExpectColumnValuesToBeBetween(column="n6", min_value=0, strict_min=True),
    ]
    asset = context.data_sources.add_pandas("p").add_dataframe_asset("a")
    batch = asset.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": read_pandas(file)})
    result = batch.validate(gx.ExpectationSuite(name="s", expectations=rules))
    return {"rules": len(result.results), "failed": sum(not one.success for one in result.results)}


def pandera_pandas(file: Path) -> dict[str, int]:
    import pandera.pandas as pa

    def share(test: Callable[[Any], Any], least: float) -> Any:
        return pa.Check(lambda s: test(s).mean() >= least, ignore_na=False)

    columns: dict[str, Any] = {n: pa.Column() for n in PRESENT}
    for n in NUMBERS:
        present = share(lambda s: s.notna(), 0.9)
        within = pa.Check(lambda s: s.between(-100, 200).mean() >= 0.99)
        columns[n] = pa.Column(float, [present, within], nullable=True)
    columns |= {n: pa.Column(int, pa.Check.in_range(0, 9990)) for n in WHOLE}
    columns |= {n: pa.Column(str, pa.Check.isin(MEMBERS)) for n in CATEGORIES}
    columns["id"] = pa.Column(int, unique=True)
    columns["text"] = pa.Column(str, [pa.Check.str_matches(PATTERN), pa.Check.str_length(32, 32)])
    columns["i0"].checks.append(pa.Check.le(10))
    columns["n6"].checks.append(pa.Check.gt(0))
    return _pandera(pa, pa.DataFrameSchema(columns), read_pandas(file))


def pandera_polars(file: Path) -> dict[str, int]:
    import pandera.polars as pa
    import polars as pl

    def share(test: Callable[[Any], Any], least: float) -> Any:
        return pa.Check(lambda data: data.lazyframe.select(test(pl.col(data.key)).mean() >= least))

    columns: dict[str, Any] = {n: pa.Column() for n in PRESENT}
    for n in NUMBERS:
        present = share(lambda c: c.is_not_null(), 0.9)
        within = share(lambda c: c.is_between(-100, 200), 0.99)
        columns[n] = pa.Column(float, [present, within], nullable=True)
    columns |= {n: pa.Column(int, pa.Check.in_range(0, 9990)) for n in WHOLE}
    columns |= {n: pa.Column(str, pa.Check.isin(MEMBERS)) for n in CATEGORIES}
    columns["id"] = pa.Column(int, unique=True)
    columns["text"] = pa.Column(str, [pa.Check.str_matches(PATTERN), pa.Check.str_length(32, 32)])
    columns["i0"].checks.append(pa.Check.le(10))
    columns["n6"].checks.append(pa.Check.gt(0))
    return _pandera(pa, pa.DataFrameSchema(columns), read_polars(file))


def _pandera(pa: Any, schema: Any, frame: Any) -> dict[str, int]:
    failed = 0
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        failed = len(error.schema_errors)
    # Each column is asked whether it is null, those of numbers by a check of their own.
    checks = sum(len(column.checks) for column in schema.columns.values())
    return {"rules": checks + len(PRESENT) + 1, "failed": failed}


def pointblank(file: Path) -> dict[str, int]:
    import pointblank as pb

    plan = pb.Validate(read_polars(file)).col_vals_not_null(PRESENT)
    plan = plan.col_vals_not_null(NUMBERS, thresholds=0.1)
    plan = plan.col_vals_between(NUMBERS, -100, 200, na_pass=True, thresholds=0.01)
    plan = plan.col_vals_between(WHOLE, 0, 9990).col_vals_in_set(CATEGORIES, MEMBERS).rows_distinct("id")
    plan = plan.col_vals_regex("text", PATTERN).col_vals_regex("text", "^.{32}$")
    plan = plan.col_vals_le("i0", 10).col_vals_gt("n6", 0)
    steps = plan.interrogate().validation_info
    failed = sum((step.warning if step.thresholds.warning is not None else not step.all_passed) for step in steps)
    return {"rules": len(steps), "failed": failed}


def _evidently(file: Path, number: str, category: str) -> dict[str, float]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = [*NUMBERS, *WHOLE, *CATEGORIES]
    definition = DataDefinition(numerical_columns=[*NUMBERS, *WHOLE], categorical_columns=CATEGORIES)
    before, after = (
        Dataset.from_pandas(read_pandas(file.with_stem(stem))[columns], data_definition=definition)
        for stem in ("a", "b")
    )
    report = Report([DataDriftPreset(columns=columns, num_method=number, cat_method=category)])
    answer = json.loads(report.run(after, before).json())
    found = {}
    for metric in answer["metrics"]:
        column = (metric.get("config") or {}).get("column")
        if column and isinstance(metric["value"], int | float):
            found[column] = float(metric["value"])
    return found


def evidently_js(file: Path) -> dict[str, float]:
    return _evidently(file, "jensenshannon", "jensenshannon")


def evidently_wasserstein(file: Path) -> dict[str, float]:
    return _evidently(file, "wasserstein", "jensenshannon")


TASKS: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "great_expectations": ("great_expectations", great_expectations),
    "pandera_pandas": ("pandera.pandas", pandera_pandas),
    "pandera_polars": ("pandera.polars", pandera_polars),
    "pointblank": ("pointblank", pointblank),
    "evidently_js": ("evidently", evidently_js),
    "evidently_wasserstein": ("evidently", evidently_wasserstein),
}


def main() -> None:
    name, folder, suffix = sys.argv[1:4]
    module, task = TASKS[name]
    import_module(module)
    wall, cpu = time.perf_counter(), time.process_time()
    answer = task(Path(folder, f"a{suffix}"))
    result = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "mib": peak_mib(),
        "answer": answer,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
