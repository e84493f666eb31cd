"""Scores a data set with an MLflow model, in the user's own interpreter.

This file is run by its path and imports nothing of mlcicd: it needs numpy, pandas and mlflow, which the user's
environment has, or it says what is missing. It writes predictions as `.npz` (no pickles) and figures as JSON::

    python score_runner.py --model DIR --data FILE --target COLUMN --out predictions.npz --figures figures.json
"""

import argparse
import contextlib
import json
import resource
import sys
import time
from pathlib import Path

CHUNK_ROWS = 50_000
LATENCY_ROWS = 200


def fail(message: str, code: int = 4) -> None:
    print(f"score: {message}", file=sys.stderr)
    raise SystemExit(code)


def read_table(path):
    import pandas as pd

    if Path(path).is_dir() or path.endswith((".parquet", ".pq")):
        return pd.read_parquet(path)
    if path.endswith((".csv", ".csv.gz", ".tsv")):
        return pd.read_csv(path, sep="\t" if path.endswith(".tsv") else ",")
    if path.endswith((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")):
        return pd.read_json(path, lines=True)
    fail(f"{path}: not .parquet, .csv, .tsv or .jsonl")


def features_of(model, table, target, ignore):
    """The columns the model wants, by its signature; without one, all but the target and the ignored."""
    inputs = model.metadata.get_input_schema()
    if inputs is None or not inputs.has_input_names():
        return table.drop(columns=[c for c in [target, *ignore] if c in table.columns])
    required = set(inputs.required_input_names())
    missing = [name for name in inputs.input_names() if name in required and name not in table.columns]
    if missing:
        fail(f"the model wants columns that the data does not have: {', '.join(missing[:10])}")
    if target in inputs.input_names():
        fail(f"the model wants the target column {target!r} as an input: it has learned from its own answer")
    return table[[name for name in inputs.input_names() if name in table.columns]]


def as_array(output):
    import numpy as np

    if isinstance(output, dict):
        output = next(iter(output.values()))
    if hasattr(output, "to_numpy"):
        output = output.to_numpy()
    array = np.asarray(output)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        fail(f"the model answered an array of shape {array.shape}; expected one row an input", 1)
    if array.dtype == object:
        try:
            array = array.astype(float)
        except (TypeError, ValueError):
            array = array.astype(str)
    return array


def classes_of(model):
    """Class labels in the order of the score columns, where the model's flavour says them."""
    try:
        native = model.get_raw_model()
    except (AttributeError, NotImplementedError):
        # Older MLflow, or a flavour without a native model: the classes then come from the holdout's labels.
        return None
    classes = getattr(native, "classes_", None)
    return None if classes is None else [c.item() if hasattr(c, "item") else c for c in classes]


def score(model, features):
    import numpy as np

    parts = [
        as_array(model.predict(features.iloc[start : start + CHUNK_ROWS]))
        for start in range(0, len(features), CHUNK_ROWS)
    ]
    answer = np.concatenate(parts) if parts else np.empty(0)
    if len(answer) != len(features):
        fail(f"the model answered {len(answer)} rows for {len(features)}", 1)
    return answer


def one_thread():
    """One row is not worth waking a pool of threads for, and their waiting for each other would be what is measured.

    A server that answers many requests at once gives each of them one thread, too.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(1)


def single_row_latencies(model, features):
    """Milliseconds of one-row predictions, after a warm-up, over rows spread through the data."""
    if not len(features):
        return []
    with one_thread():
        return _latencies(model, features)


def _latencies(model, features):
    step = max(1, len(features) // LATENCY_ROWS)
    rows = [features.iloc[i : i + 1] for i in range(0, len(features), step)][:LATENCY_ROWS]
    for row in rows[:5]:
        model.predict(row)
    seen = []
    for row in rows:
        started = time.perf_counter()
        model.predict(row)
        seen.append((time.perf_counter() - started) * 1000)
    return seen


def peak_bytes():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--ignore", action="append", default=[])
    parser.add_argument("--out", required=True)
    parser.add_argument("--figures", required=True)
    arguments = parser.parse_args()
    try:
        import numpy as np
        import pandas  # noqa: F401
        from mlflow import pyfunc
    except ImportError as error:
        fail(f"{sys.executable} can not import {error.name}: install it there, or name another interpreter (python:)")
    table = read_table(arguments.data)
    started = time.perf_counter()
    model = pyfunc.load_model(arguments.model)
    load_seconds = time.perf_counter() - started
    features = features_of(model, table, arguments.target, arguments.ignore)
    started = time.perf_counter()
    answer = score(model, features)
    figures = {
        "rows": len(features),
        "load_seconds": load_seconds,
        "score_seconds": time.perf_counter() - started,
        "latencies_ms": single_row_latencies(model, features),
        "peak_bytes": peak_bytes(),
        "classes": classes_of(model),
        "features": list(map(str, features.columns)),
    }
    Path(arguments.figures).write_text(json.dumps(figures), encoding="utf-8")
    # Last: its presence says that all went well.
    np.savez(arguments.out, answer=answer)


if __name__ == "__main__":
    main()
