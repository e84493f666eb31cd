"""Tables in pieces: the same answers as of the whole, killed commands that go on, and files that are whole or not."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

from mlcicd.core.digests import digest_tree
from mlcicd.core.errors import CommandFailed, ConfigError, InputError, ServiceError
from mlcicd.evaluation import batch, batch_spark
from mlcicd.evaluation.batch import RUNNER, Batch, Job, Naming, Rows, predict_rows, stamp_of

pytestmark = pytest.mark.slow

# Models that misbehave; pickled by reference, so that the runner imports them from the folder of the project.
OWN = """\
import os, signal, time
from pathlib import Path
import numpy as np

class Sums:
    feature_names_in_ = ["a", "b"]
    def predict(self, table):
        return table["a"].to_numpy(dtype=float) + 2 * table["b"].to_numpy(dtype=float)

class DiesOnce(Sums):
    def predict(self, table):
        if table["a"].max() > 2500 and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(table)

class Waits(Sums):
    def predict(self, table):
        if table["a"].max() > 1500 and not Path("go").exists():
            Path("waiting").write_text(str(os.getpid()))
            while not Path("go").exists():
                time.sleep(0.02)
        return super().predict(table)

class Raises(Sums):
    def predict(self, table):
        if table["a"].max() > 2500:
            raise ValueError("no such row")
        return super().predict(table)

class Unnamed(Sums):
    feature_names_in_ = None
    def predict(self, table):
        return table["a"].to_numpy() if list(table.columns) == ["a", "b"] else None
"""
MAKE = """\
import sys, joblib, own
for name in ("Sums", "DiesOnce", "Waits", "Raises", "Unnamed"):
    joblib.dump(getattr(own, name)(), name + ".joblib")
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    (folder / "own.py").write_text(OWN)
    subprocess.run([sys.executable, "-c", MAKE], cwd=folder, check=True)
    return folder


@pytest.fixture
def place(models: Path, tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def numbers(rows: int = 4000) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"{i:05d}" for i in range(rows)], "a": range(rows), "b": np.arange(rows) / 8})


def job(place: Path, model: Path, table: Path, output: str = "out.parquet", task: str = "regression") -> Job:
    stamp = stamp_of([table])
    rows = Rows((table,), "parquet" if table.suffix == ".parquet" else "csv", ",", digest_tree(table), stamp)
    return Job(
        model=model,
        model_digest=digest_tree(model),
        rows=rows,
        output=place / output,
        naming=Naming(task),
        keys=["id"],
        target="y",
        ignore=["id"],
        batch_rows=1000,
        metadata={"mlcicd.lineage": "{}"},
        timeout=300,
    )


def run(work: Job, place: Path) -> Batch:
    return predict_rows(work, python=sys.executable, environ=dict(os.environ), cwd=place, state=place / "state")


def written(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir() if "out" in p.name)


def test_a_classifier_answers_pieces_as_it_answers_the_whole(place: Path) -> None:
    draw = np.random.default_rng(1)
    table = pd.DataFrame({"a": draw.normal(size=2500), "b": draw.integers(0, 9, 2500).astype(float)})
    words = np.where(table["a"] > 0.5, "late", np.where(table["a"] < -0.5, "early", "on time"))
    model = LogisticRegression().fit(table, words)
    joblib.dump(model, place / "model.joblib")
    # Three row groups, none of them as long as a piece; keys that are categories, and y, which it must not be given.
    full = table.assign(id=pd.Categorical([f"k{i % 7}" for i in range(2500)]), y=words, when=pd.Timestamp("2013-05-01"))
    full.to_parquet(place / "rows.parquet", row_group_size=900)
    work = replace(job(place, place / "model.joblib", place / "rows.parquet", task="multiclass"), keys=["id", "when"])
    done = run(work, place)
    assert (done.rows, done.bad_rows, done.resumed_rows) == (2500, 0, 0)
    made = pq.read_table(place / "out.parquet")
    assert made.schema.metadata[b"mlcicd.lineage"] == b"{}"
    expected = model.predict_proba(table)
    probabilities = [f"probability_{name}" for name in ("early", "late", "on time")]
    assert made.column_names == ["id", "when", "prediction", *probabilities]
    np.testing.assert_allclose(made.select(probabilities).to_pandas().to_numpy(), expected, rtol=0, atol=1e-12)
    assert made["prediction"].to_pylist() == model.predict(table).tolist()
    assert made["id"].to_pylist() == full["id"].tolist()
    assert made["when"].type == pq.read_schema(place / "rows.parquet").field("when").type
    assert done.digest == digest_tree(place / "out.parquet")
    assert not list((place / "state" / "predict").glob("*/*.npy")), "the parts are gone"


def test_types_are_those_of_the_whole_column(place: Path, models: Path) -> None:
    """Whole numbers in the first piece, an empty cell in the second: one type for all, in Parquet as in CSV."""
    types = (place / "own.py").read_text() + "\nclass Types(Sums):\n    def predict(self, table):\n"
    (place / "own.py").write_text(
        types + '        return np.full(len(table), str(table["a"].dtype) + str(table["b"].dtype))\n'
    )
    dump = "import joblib, own; joblib.dump(own.Types(), 'types.joblib')"
    subprocess.run([sys.executable, "-c", dump], cwd=place, check=True)
    table = numbers(2000).astype({"b": "Int64"}, errors="ignore").assign(b=pd.array([1] * 1999 + [None], dtype="Int64"))
    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(arrow, place / "rows.parquet")
    table.to_csv(place / "rows.csv", index=False)
    for name in ("rows.parquet", "rows.csv"):
        run(job(place, place / "types.joblib", place / name), place)
        assert set(pq.read_table(place / "out.parquet")["prediction"].to_pylist()) == {"int64float64"}, name


def test_csv_keeps_the_text_of_its_keys_and_the_order(place: Path, models: Path) -> None:
    numbers().to_csv(place / "rows.csv", index=False)
    work = job(place, models / "Sums.joblib", place / "rows.csv", "out.csv.gz")
    run(work, place)
    first = (place / "out.csv.gz").read_bytes()
    made = pd.read_csv(place / "out.csv.gz", dtype={"id": str})
    assert made["id"].tolist() == numbers()["id"].tolist()
    assert made["prediction"].tolist() == (numbers()["a"] + 2 * numbers()["b"]).tolist()
    run(work, place)
    assert (place / "out.csv.gz").read_bytes() == first, "the same rows are the same bytes"
    run(replace(work, output=place / "out.parquet", keys=["id", "a"]), place)
    made = pq.read_table(place / "out.parquet")
    assert made["id"].to_pylist() == numbers()["id"].tolist()
    assert made["a"].to_pylist() == list(range(4000)), "whole numbers, which can be joined"


def test_an_answer_that_is_nan_leaves_the_old_file(place: Path, models: Path) -> None:
    table = numbers()
    table.loc[[1234, 3210], "b"] = np.nan
    table.to_parquet(place / "rows.parquet")
    (place / "out.parquet").write_bytes(b"old")
    done = run(job(place, models / "Sums.joblib", place / "rows.parquet"), place)
    assert (done.bad_rows, done.first_bad_row, done.digest) == (2, 1234, "")
    assert (place / "out.parquet").read_bytes() == b"old"
    assert written(place) == ["out.parquet"]


def test_a_killed_model_goes_on_where_it_was(place: Path, models: Path) -> None:
    numbers().to_parquet(place / "rows.parquet")
    work = job(place, models / "DiesOnce.joblib", place / "rows.parquet")
    with pytest.raises(CommandFailed, match="killed by signal 9"):
        run(work, place)
    assert written(place) == [], "nothing half done stands there"
    done = run(work, place)
    assert (done.rows, done.resumed_rows) == (4000, 2000)
    made = pq.read_table(place / "out.parquet").to_pandas()
    assert made["prediction"].tolist() == (numbers()["a"] + 2 * numbers()["b"]).tolist()
    assert made["id"].tolist() == numbers()["id"].tolist()


COMMAND = """\
import json, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_scoring_batch import job, run
place = Path({place!r})
run(job(place, Path({model!r}), place / "rows.parquet"), place)
"""


def until(condition: object, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended and that nobody has asked for is still in the table.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_twice_at_once_and_a_killed_command(place: Path, models: Path) -> None:
    numbers().to_parquet(place / "rows.parquet")
    model = models / "Waits.joblib"
    script = COMMAND.format(tests=str(Path(__file__).parent), place=str(place), model=str(model))
    command = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        until(lambda: (place / "waiting").exists() and (place / "waiting").read_text())
        work = job(place, model, place / "rows.parquet")
        with pytest.raises(ServiceError, match="another prediction into this file is running"):
            run(work, place)
        with pytest.raises(ServiceError, match="another prediction of these rows with this model"):
            run(replace(work, output=place / "another_out.parquet"), place)
        runner = int((place / "waiting").read_text())
    finally:
        command.send_signal(signal.SIGKILL)
        command.wait()
    (place / "go").touch()
    until(lambda: not alive(runner))
    assert len([n for n in written(place) if n.endswith(".part")]) == 1, "what the killed command left"
    done = run(work, place)
    assert done.rows == 4000
    assert done.resumed_rows >= 1000
    assert written(place) == ["out.parquet"], "nor is anything left of the killed one"
    made = pq.read_table(place / "out.parquet")["prediction"].to_pylist()
    assert made == (numbers()["a"] + 2 * numbers()["b"]).tolist()


def test_memory_does_not_grow_with_the_table(place: Path, models: Path) -> None:
    """One row group of all rows, which is the hardest for a reader in pieces."""
    draw = np.random.default_rng(2)
    peaks = []
    for rows in (200_000, 3_000_000):
        table = pa.table({name: draw.normal(size=rows) for name in "abcdef"} | {"id": np.arange(rows)})
        pq.write_table(table, place / "rows.parquet", row_group_size=rows)
        # A model that does not name its columns is given all of them.
        work = replace(job(place, models / "Unnamed.joblib", place / "rows.parquet"), batch_rows=20_000)
        (place / "own.py").write_text(OWN.replace('list(table.columns) == ["a", "b"]', "len(table.columns) == 6"))
        peaks.append(run(work, place).figures["peak_bytes"])
    assert peaks[1] - peaks[0] < table.nbytes / 4, f"{peaks} for a table of {table.nbytes} bytes"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "Raises.joblib"}, CommandFailed, "rows 2000 to 2999: ValueError: no such row"),
        ({"drop": "b"}, InputError, "wants columns that the data does not have: b"),
        ({"output": "rows.parquet"}, ConfigError, "the output is the input"),
        ({"output": "out.xlsx"}, ConfigError, "no kind that can be written"),
        ({"rows": 0}, InputError, "there are no rows"),
        ({"keys": ["prediction"]}, InputError, "has the name of an answer"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, dict) else "",
)
def test_what_can_not_be_done_is_said(
    place: Path, models: Path, change: dict[str, object], error: type[Exception], words: str
) -> None:
    table = numbers(int(change.get("rows", 4000))).assign(prediction=1)  # type: ignore[call-overload]
    table.drop(columns=[str(change["drop"])] if "drop" in change else []).to_parquet(place / "rows.parquet")
    before = (place / "rows.parquet").read_bytes()
    model = models / str(change.get("model", "Sums.joblib"))
    work = job(place, model, place / "rows.parquet", str(change.get("output", "out.parquet")))
    with pytest.raises(error, match=words):
        run(replace(work, keys=change.get("keys", [])), place)  # type: ignore[arg-type]
    assert (place / "rows.parquet").read_bytes() == before
    assert written(place) == []


def test_a_table_that_is_written_after_its_digest_is_not_scored(place: Path, models: Path) -> None:
    table = place / "rows.parquet"
    numbers().to_parquet(table)
    work = job(place, models / "Sums.joblib", table)
    numbers().assign(a=1).to_parquet(table)
    with pytest.raises(InputError, match="changed while it was read"):
        run(work, place)
    table.unlink()
    with pytest.raises(InputError, match="changed while it was read"):
        run(work, place)
    assert written(place) == []


@pytest.mark.parametrize("killed", [True, False], ids=["the other is killed", "the other is faster"])
def test_two_attempts_of_a_task_do_not_write_into_the_file_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    monkeypatch.syspath_prepend(str(RUNNER.parent))
    runner = importlib.import_module("batch_runner")
    part, own, other = tmp_path / "00000000.npy", np.arange(5.0), np.arange(3.0)
    forced = []

    def fsync(descriptor: int) -> None:
        forced.append(descriptor)
        if len(forced) == 2 and killed:
            raise InterruptedError
        if len(forced) == 1:
            # The second attempt begins when the first has written, and has not yet given it its name.
            with contextlib.suppress(InterruptedError):
                runner.replaced(part, other)

    monkeypatch.setattr(os, "fsync", fsync)
    runner.replaced(part, own)
    assert len(forced) == 2 and np.load(part).tolist() == own.tolist()


def test_what_a_killed_command_had_begun_is_removed(place: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers(8).to_parquet(place / "rows.parquet")
    work = job(place, models / "Sums.joblib", place / "rows.parquet")
    seen = []

    def killed(_job: Job, parts: Path, *_: object) -> None:
        seen.append(sorted(part.name for part in parts.iterdir()))
        for name in ("00000000.npy", "00000001.npy.f00.part"):
            (parts / name).touch()
        raise CommandFailed("killed")

    monkeypatch.setattr(batch, "_run", killed)
    for _ in range(2):
        with pytest.raises(CommandFailed):
            run(work, place)
    assert seen == [[], ["00000000.npy"]]


def test_the_parts_of_another_model_are_not_taken(place: Path, models: Path) -> None:
    numbers().to_parquet(place / "rows.parquet")
    with pytest.raises(CommandFailed):
        run(job(place, models / "Raises.joblib", place / "rows.parquet"), place)
    kept = list((place / "state" / "predict").glob("*/*.npy"))
    assert len(kept) == 2
    done = run(job(place, models / "Sums.joblib", place / "rows.parquet"), place)
    assert done.resumed_rows == 0
    assert json.loads((kept[0].parent / "model.json").read_text())["features"] == ["a", "b"]


SPARK = {
    "master": "local[2]",
    "options": {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    },
}


def test_on_spark_the_file_is_the_same_to_the_byte_and_a_killed_task_leaves_none(place: Path, models: Path) -> None:
    # Two files, row groups of another length than the pieces, and an empty cell in the last row alone.
    table = numbers(7300).assign(b=pd.array([1] * 7299 + [None], dtype="Int64"))
    files = (place / "rows-1.parquet", place / "rows-2.parquet")
    for file, rows in zip(files, (table[:4500], table[4500:]), strict=True):
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), file, row_group_size=700)
    base = job(place, models / "Sums.joblib", files[0])
    types = (place / "own.py").read_text() + "\nclass Types(DiesOnce):\n    def predict(self, table):\n"
    types += '        super().predict(table)\n        return np.full(len(table), f"{table.dtypes.tolist()}")\n'
    (place / "own.py").write_text(types)
    dump = "import joblib, own; joblib.dump(own.Types(), 'types.joblib')"
    subprocess.run([sys.executable, "-c", dump], cwd=place, check=True)
    model = place / "types.joblib"
    rows = replace(base.rows, files=files, stamp=stamp_of(files))
    local = replace(base, model=model, model_digest=digest_tree(model), rows=rows, batch_rows=1600)
    on_spark = replace(local, spark=SPARK)
    with pytest.raises(ServiceError, match="the runner ended with -9"):
        run(on_spark, place)
    assert written(place) == []
    assert list((place / "state" / "predict").glob("*/*.npy")), "what was answered is kept"
    done = run(on_spark, place)
    assert done.rows == 7300 and 0 < done.resumed_rows < 7300
    assert written(place) == ["out.parquet"]
    alone = run(replace(local, output=place / "local-out.parquet"), place)
    assert (alone.resumed_rows, alone.digest) == (0, done.digest)
    made = pq.read_table(place / "out.parquet")
    assert made["id"].to_pylist() == table["id"].tolist()
    assert set(made["prediction"].to_pylist()) == {"[dtype('int64'), dtype('float64')]"}


def test_what_a_worker_of_spark_is_refused_is_final_and_what_kills_it_is_not(
    place: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Spark around it, whose start costs more than all that is looked at here."""
    numbers().to_parquet(place / "rows.parquet", row_group_size=900)
    (place / "parts").mkdir()
    plan = {"format": "parquet", "files": [str(place / "rows.parquet")], "delimiter": ",", "batch_rows": 1000}
    plan |= {"target": "y", "ignore": ["id"], "parts": str(place / "parts"), "cwd": str(place), "spark": SPARK}

    def asked(name: str, first: int, last: int) -> object:
        own = {**plan, "kind": "joblib", "model": str(models / f"{name}.joblib")}
        return batch_spark._ask_some((own, (first, last)))

    monkeypatch.setattr("pyspark.SparkFiles.get", lambda name: str(RUNNER.with_name(name)))
    assert asked("Sums", 1, 3) is None
    assert sorted(part.name for part in (place / "parts").glob("*.npy")) == ["00000001.npy", "00000002.npy"]
    answers = np.load(place / "parts" / "00000002.npy")
    np.testing.assert_array_equal(answers, np.arange(2000, 3000) * 1.25)
    code, said = asked("Raises", 3, 4)
    assert code == 1 and "ValueError: no such row" in said and "counted from piece 3 on" in said
    with pytest.raises(RuntimeError, match="the runner ended with -9"):
        asked("DiesOnce", 3, 4)
    # A task is not given what is answered already.
    assert batch_spark._spans(place / "parts", 4, 4) == [(0, 1), (3, 4)]


def test_without_pyspark_it_is_said(place: Path, models: Path) -> None:
    numbers(10).to_parquet(place / "rows.parquet")
    (place / "pyspark.py").write_text("raise ImportError('none')\n")
    work = replace(job(place, models / "Sums.joblib", place / "rows.parquet"), spark=SPARK)
    hidden = {**os.environ, "PYTHONPATH": str(place)}
    with pytest.raises(ServiceError, match="can not import pyspark"):
        predict_rows(work, python=sys.executable, environ=hidden, cwd=place, state=place / "state")
