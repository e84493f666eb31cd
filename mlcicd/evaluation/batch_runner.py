"""Scores a table that is larger than memory, in the user's own interpreter.

This file is run by its path and imports nothing of mlcicd but the files beside it. It is told what to do in a JSON
file, whose keys are those of `batch.Job`, and works in two passes. The first asks the model, piece by piece; the
answers of each piece are a file of their own (`.npy`, no pickles), so that what was killed goes on where it was. The
second writes them, beside the key columns of the input, into one file::

    python batch_runner.py PLAN.json

On Spark the first pass is many of these, each over some pieces (`batch_spark.py`): PLAN.json FIRST LAST.
"""

# mypy: ignore-errors
# Runs in the user's interpreter, whatever its version: plain Python without annotations.

import json
import os
import sys
import time
import uuid
from pathlib import Path

from batch_spark import NoSpark, ask_on_spark
from batch_tables import Unreadable, open_table, open_writer
from score_loaders import LOADERS, Refused
from score_runner import as_array, fail, features_of, peak_bytes

CLASSES = ("binary", "multiclass")
# How text answers say that there is none.
NO_TEXT = ("", "None", "nan", "NaN", "<NA>")
MODEL_FACTS = "model.json"
SAY_EVERY_S = 10


def replaced(path, content):
    """A file of text, or of an array, that is whole or not there."""
    import numpy as np

    # Its own name: Spark may run a task twice at the same time, and neither may publish what the other has begun.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    with temporary.open("wb") as file:
        if isinstance(content, str):
            file.write(content.encode())
        else:
            np.save(file, content, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def attended(plan):
    """Ends this process when the command that started it was killed: another one may be at work by now."""
    if os.getppid() != plan["parent"]:
        fail("the command that asked is gone", 5)


def wanted_columns(model, table):
    """The names to read; None for all, where the model does not say which it wants."""
    if model.columns is None or isinstance(model.columns, int):
        return None
    known = set(table.columns)
    return [name for name, _ in model.columns if name in known]


def ask(plan, table, model, *span):
    """The first pass, over all pieces, or those from a first to a last (exclusive). Gives the number of rows, and of
    those that an earlier run had asked already."""
    parts = Path(plan["parts"])
    rows = kept = 0
    said = time.monotonic()
    wanted = wanted_columns(model, table)
    if wanted == []:
        fail("the data has none of the columns that the model wants: " + ", ".join(n for n, _ in model.columns[:10]))
    for number, piece in enumerate(table.batches(wanted, *span), *span[:1]):
        attended(plan)
        part = parts / f"{number:08d}.npy"
        if part.exists():
            kept += len(piece)
        else:
            features = features_of(model, piece, plan["target"], plan["ignore"])
            try:
                answer = as_array(model.predict(features))
            except Refused:
                raise
            except Exception as error:
                fail(f"{rows_of(rows, piece, span)}: {type(error).__name__}: {error}"[:1000], 1)
            if len(answer) != len(piece):
                fail(f"{rows_of(rows, piece, span)}: the model answered {len(answer)} rows", 1)
            if number == 0:
                facts = {"classes": model.classes, "features": list(map(str, features.columns))}
                replaced(parts / MODEL_FACTS, json.dumps(facts))
            replaced(part, answer)
        rows += len(piece)
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            print(f"{rows:,} rows", flush=True)
    return rows, kept


def rows_of(before, piece, span):
    """Which rows a message means: counted from those of the table, or from those of a task's first piece."""
    within = f" (counted from piece {span[0]} on)" if span and span[0] else ""
    return f"rows {before} to {before + len(piece) - 1}{within}"


def ask_cluster(plan, table):
    """The first pass on Spark; gives what `ask` gives."""
    pieces, rows = table.extent()
    kept = sum(len(answer) for answer in stored(Path(plan["parts"])))
    refused = ask_on_spark(plan, pieces)
    if refused is not None:
        fail(refused[1], refused[0])
    return rows, kept


def stored(parts):
    import numpy as np

    for part in sorted(parts.glob("*.npy")):
        yield np.load(part, allow_pickle=False)


def bad_rows(answer, classes):
    """Which rows have no usable answer: NaN, infinite, or text that stands for nothing."""
    import numpy as np

    if answer.dtype.kind == "f":
        bad = ~np.isfinite(answer)
    elif answer.dtype.kind == "U":
        bad = np.isin(answer, [word for word in NO_TEXT if word not in [str(c) for c in classes or []]])
    elif answer.dtype.kind in "Mm":
        bad = np.isnat(answer)
    else:
        bad = np.zeros(answer.shape, dtype=bool)
    return bad if bad.ndim == 1 else bad.any(axis=1)


def survey(parts, classes):
    """What all answers are together: width (0 for one value a row), type, whether all are 0 or 1, and the bad rows."""
    import numpy as np

    widths, dtypes, zero_one, bad, first_bad, rows = set(), [], True, 0, None, 0
    for answer in stored(parts):
        widths.add(answer.shape[1] if answer.ndim == 2 else 0)
        dtypes.append(answer.dtype)
        zero_one = zero_one and answer.dtype.kind in "biuf" and bool(np.isin(answer, (0, 1)).all())
        found = np.flatnonzero(bad_rows(answer, classes))
        if len(found) and first_bad is None:
            first_bad = rows + int(found[0])
        bad += len(found)
        rows += len(answer)
    text = {dtype.kind == "U" for dtype in dtypes}
    if len(widths) != 1 or len(text) != 1:
        fail("the model answers arrays of different shapes or types for different rows", 1)
    return {
        "width": widths.pop(),
        "dtype": np.result_type(*dtypes),
        "zero_one": zero_one,
        "bad_rows": bad,
        "first_bad_row": first_bad,
        "answered": rows,
    }


def named(plan, answer, classes, seen):
    """The answer's columns by name, in the names that `evaluate --predictions` reads."""
    import numpy as np

    task, width = plan["task"], seen["width"]
    if not width:
        score = task == "binary" and seen["dtype"].kind == "f" and not seen["zero_one"]
        return {plan["score"] if score else plan["prediction"]: answer}
    if task in ("quantile", "forecast"):
        levels = plan["quantiles"] if len(plan["quantiles"]) == width else range(width)
        return {f"{plan['prefix']}{level}": answer[:, i] for i, level in enumerate(levels)}
    if task not in (*CLASSES, "multilabel"):
        return {f"{plan['prediction']}_{i}": answer[:, i] for i in range(width)}
    known = plan["labels"] if task == "multilabel" and plan["labels"] else classes
    usable = isinstance(known, list) and len(known) == width and not any(isinstance(c, list) for c in known)
    names = known if usable else range(width)
    columns = {f"{plan['prefix']}{name}": answer[:, i] for i, name in enumerate(names)}
    if usable and task in CLASSES and seen["dtype"].kind == "f":
        codes = (answer[:, 1] >= 0.5).astype(int) if width == 2 else answer.argmax(axis=1)
        columns = {plan["prediction"]: np.asarray(known)[codes], **columns}
    return columns


def write(plan, table, classes, seen):
    """The second pass. Gives the kinds of the answer's columns: `text`, or `number`."""
    writer = open_writer(plan["out"], plan["out_name"], plan["metadata"])
    typed = plan["out_name"].endswith((".parquet", ".pq"))
    keys = table.keys(plan["keys"], typed) if plan["keys"] else None
    kinds = {}
    try:
        for answer in stored(Path(plan["parts"])):
            attended(plan)
            columns = named(plan, answer.astype(seen["dtype"]), classes, seen)
            beside = next(keys) if keys is not None else {}
            twice = sorted(set(beside) & set(columns))
            if twice:
                fail(f"the key column {twice[0]!r} has the name of an answer: rename one (evaluate.predictions)")
            if any(len(values) != len(answer) for values in beside.values()):
                fail("the input was changed while it was read", 4)
            writer.write({**beside, **columns})
            kinds = {name: "number" if v.dtype.kind in "biuf" else "text" for name, v in columns.items()}
    finally:
        writer.close()
    return kinds


def main():
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        import numpy  # noqa: F401
        import pandas  # noqa: F401
    except ImportError as error:
        fail(f"{sys.executable} can not import {error.name}: install it there, or name another interpreter (python:)")
    try:
        table = open_table(plan)
        started = loaded = time.perf_counter()
        if plan["spark"] and len(sys.argv) == 2:
            rows, kept = ask_cluster(plan, table)
        else:
            model = LOADERS[plan["kind"]](plan["model"])
            loaded = time.perf_counter()
            rows, kept = ask(plan, table, model, *map(int, sys.argv[2:]))
        if len(sys.argv) > 2:
            return
        asked = time.perf_counter()
        if not rows:
            fail("there are no rows to score")
        facts = json.loads((Path(plan["parts"]) / MODEL_FACTS).read_text(encoding="utf-8"))
        seen = survey(Path(plan["parts"]), facts["classes"])
        if seen["answered"] != rows:
            fail("the kept answers are not those of these rows: remove the folder of parts", 5)
        kinds = {} if seen["bad_rows"] else write(plan, table, facts["classes"], seen)
    except (Refused, Unreadable) as error:
        fail(str(error))
    except NoSpark as error:
        fail(str(error), 5)
    report = {
        "rows": rows,
        "resumed_rows": kept,
        "bad_rows": seen["bad_rows"],
        "first_bad_row": seen["first_bad_row"],
        "columns": kinds,
        "load_seconds": loaded - started,
        "score_seconds": asked - loaded,
        "write_seconds": time.perf_counter() - asked,
        "peak_bytes": peak_bytes(),
        **facts,
    }
    replaced(Path(plan["report"]), json.dumps(report))


if __name__ == "__main__":
    main()
