"""Scores a data set with a model, in the user's own interpreter.

This file is run by its path and imports nothing of mlcicd but `score_loaders.py` beside it: it needs numpy, pandas and
the library that saved the model, which the user's environment has, or it says what is missing. It writes predictions
as `.npz` (no pickles) and figures as JSON::

    python score_runner.py --kind KIND --model PATH --data FILE --target COLUMN --out predictions.npz --figures F.json
"""

import argparse
import contextlib
import json
import resource
import sys
import time
from pathlib import Path

from score_loaders import LOADERS, Refused

# Python put this file's folder first, where our modules would hide others of the same name. The project's own stand in
# the folder in which we are run; last, so that a file there can not pass itself off as a library to the champion.
del sys.path[0]
sys.path.append(str(Path.cwd()))

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
    """The columns the model wants, by its own record of them; without one, all but the target and the ignored."""
    others = [c for c in table.columns if c != target and c not in ignore]
    wanted = model.columns
    if wanted is None:
        return table[others]
    if isinstance(wanted, int):
        if wanted != len(others):
            fail(
                f"the model takes {wanted} columns without names, and the data has {len(others)} beside the target: "
                "list those that it is not given under data.ignore"
            )
        return table[others]
    missing = [name for name, required in wanted if required and name not in table.columns]
    if missing:
        fail(f"the model wants columns that the data does not have: {', '.join(missing[:10])}")
    if target in [name for name, _ in wanted]:
        fail(f"the model wants the target column {target!r} as an input: it has learned from its own answer")
    return table[[name for name, _ in wanted if name in table.columns]]


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


def write_request(features, path):
    """The rows as the body of a request (`dataframe_split`), with the very values that the model was given."""
    columns = [[plain_value(value, name) for value in features[name].astype(object)] for name in features.columns]
    rows = [list(row) for row in zip(*columns)]  # noqa: B905  (the user's Python may be old)
    body = {"dataframe_split": {"columns": list(map(str, features.columns)), "data": rows}}
    Path(path).write_text(json.dumps(body, allow_nan=False), encoding="utf-8")


def plain_value(value, name):
    """A cell as JSON has it; empty ones are null."""
    import pandas as pd

    if hasattr(value, "tolist") and getattr(value, "ndim", 0):
        return value.tolist()
    if value is None or pd.isna(value) is True:
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bytes) or value in (float("inf"), float("-inf")):
        fail(f"the column {name!r} has binary or infinite values, which a request in JSON does not carry")
    return value if isinstance(value, (bool, int, float, str, list, dict)) else str(value)


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
    """The most memory that this process held. Linux's `ru_maxrss` begins with what its parent held: not asked there."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="mlflow", choices=LOADERS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--ignore", action="append", default=[])
    parser.add_argument("--out", required=True)
    parser.add_argument("--figures", required=True)
    parser.add_argument("--request", default="")
    arguments = parser.parse_args()
    try:
        import numpy as np
        import pandas  # noqa: F401
    except ImportError as error:
        fail(f"{sys.executable} can not import {error.name}: install it there, or name another interpreter (python:)")
    table = read_table(arguments.data)
    started = time.perf_counter()
    try:
        model = LOADERS[arguments.kind](arguments.model)
    except Refused as error:
        fail(str(error))
    load_seconds = time.perf_counter() - started
    features = features_of(model, table, arguments.target, arguments.ignore)
    started = time.perf_counter()
    answer = score(model, features)
    figures = {
        "rows": len(features),
        "load_seconds": load_seconds,
        "score_seconds": time.perf_counter() - started,
        "latencies_ms": [] if arguments.request else single_row_latencies(model, features),
        "peak_bytes": peak_bytes(),
        "classes": model.classes,
        "features": list(map(str, features.columns)),
    }
    Path(arguments.figures).write_text(json.dumps(figures), encoding="utf-8")
    if arguments.request:
        write_request(features, arguments.request)
    # Last: its presence says that all went well.
    np.savez(arguments.out, answer=answer)


if __name__ == "__main__":
    main()
