"""Rules and drift on generated Parquet, as ratios to the time the engine needs to decode every column once.

    python benchmarks/data.py [--rows 1000000] [--alone] [--without NAME ...]

Each measurement runs in a process of its own, because peak memory is a process's. Peers are installed into a virtual
environment of their own (`.venv-bench`) and run the same rules and the same drift (data_peers.py); a peer that ends
with an error, or not within `--patience` seconds, says so in the table. Below the table stand the bars (data_bars.py),
held or missed; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from data_bars import judged

HERE = Path(__file__).resolve().parent

MEMORY = "1GB"
NUMBERS = [f"n{i}" for i in range(8)]
WHOLE = [f"i{i}" for i in range(4)]
CATEGORIES = [f"c{i}" for i in range(4)]


def generate(path: Path, rows: int, shift: float) -> None:
    """Twenty columns: a key, a time, numbers of three shapes, categories, text and a label."""
    import duckdb

    numbers = [
        f"sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()) * {i + 1} + {shift} AS n{i}" for i in range(6)
    ] + [f"exp(random() * 5 + {shift}) AS n6", "CASE WHEN random() < 0.05 THEN NULL ELSE random() END AS n7"]
    whole = [f"CAST(floor(random() * {10 ** (i + 1)}) AS BIGINT) AS i{i}" for i in range(4)]
    words = [f"'v' || CAST(floor(random() * random() * {5 * (i + 1)}) AS INTEGER) AS c{i}" for i in range(4)]
    columns = [
        "range AS id",
        "TIMESTAMP '2024-01-01' + to_seconds(range) AS t",
        *numbers,
        *whole,
        *words,
        "md5(CAST(range AS VARCHAR)) AS text",
        "random() < 0.2 AS label",
    ]
    with duckdb.connect(config={"memory_limit": "2GB"}) as connection:
        connection.execute(f"SELECT setseed({0.5 + shift})")
        connection.execute(f"COPY (SELECT {', '.join(columns)} FROM range({rows})) TO '{path}' (FORMAT parquet)")
        if not shift:
            connection.execute(f"COPY (SELECT * FROM '{path}') TO '{path.with_suffix('.csv')}' (FORMAT csv, HEADER)")


def schema() -> str:
    """Some forty rules, of which a few fail."""
    lines = ["version: 1", "key: [id]", "extra_columns: forbid", "columns:", "  id: {type: int, min: 0, unique: true}"]
    lines.append("  t: {type: timestamp, min: 2024-01-01}")
    lines += [f"  {n}: {{type: float, min: -100, max: 200, mostly: 0.99, nulls: 0.1}}" for n in NUMBERS]
    lines += [f"  {n}: {{type: int, min: 0, max: 9990}}" for n in WHOLE]
    lines += [f"  {n}: {{type: string, in: [{', '.join(f'v{i}' for i in range(19))}]}}" for n in CATEGORIES]
    lines += ["  text: {type: string, pattern: '[0-9a-f]{32}', length: {min: 32, max: 32}}", "  label: {type: bool}"]
    lines += ["rules:", "  - {name: order, expression: i0 <= 10 and n6 > 0}"]
    return "\n".join(lines)


def decode(folder: Path, file: str = "a.parquet") -> object:
    from mlcicd.data.source import open_source, quote

    source = open_source(folder / file, memory_limit=MEMORY)
    return source.fetch(f"SELECT {', '.join(f'count(hash({quote(n)}))' for n in source.columns)} FROM data")


def decode_csv(folder: Path) -> object:
    return decode(folder, "a.csv")


def decode_numbers_twice(folder: Path) -> object:
    from mlcicd.data.source import open_source

    parts = [f"sum({n})" for n in (*NUMBERS, *WHOLE)] + [f"count(hash({n}))" for n in CATEGORIES]
    return [
        open_source(folder / f, memory_limit=MEMORY).fetch(f"SELECT {', '.join(parts)} FROM data")
        for f in ("a.parquet", "b.parquet")
    ]


def rules(folder: Path, file: str = "a.parquet") -> object:
    from mlcicd.data.checks import run_checks
    from mlcicd.data.schema import parse_schema
    from mlcicd.data.source import open_source

    checks = run_checks(open_source(folder / file, memory_limit=MEMORY), parse_schema(schema()))
    return {"rules": len(checks), "failed": sum(check.status == "failed" for check in checks)}


def rules_csv(folder: Path) -> object:
    return rules(folder, "a.csv")


def drift_of_two_files(folder: Path) -> object:
    from mlcicd.data.drift import drift
    from mlcicd.data.profile import profile
    from mlcicd.data.source import open_source

    columns = [*NUMBERS, *WHOLE, *CATEGORIES]
    reference = profile(open_source(folder / "a.parquet", memory_limit=MEMORY), columns)
    (folder / "profile.json").write_text(json.dumps(reference.to_json()))
    results = drift(reference, open_source(folder / "b.parquet", memory_limit=MEMORY))
    return {r.column: {"js": r.js, "wasserstein": r.wasserstein} for r in results}


def drift_from_a_profile(folder: Path) -> object:
    from mlcicd.data.drift import drift
    from mlcicd.data.profile import Profile
    from mlcicd.data.source import open_source

    text = (folder / "profile.json").read_text()
    results = drift(Profile.from_json(json.loads(text)), open_source(folder / "b.parquet", memory_limit=MEMORY))
    return {"columns": len(results), "profile_bytes": len(text)}


def leakage(folder: Path) -> object:
    from mlcicd.data.leakage import leakage_checks
    from mlcicd.data.source import open_source

    pair = [open_source(folder / f, memory_limit=MEMORY) for f in ("a.parquet", "b.parquet")]
    return len(leakage_checks(*pair, keys=["id"], time="t", target="label", features=[*NUMBERS, *CATEGORIES]))


def exact(folder: Path) -> object:
    from data_agreement import agreement

    return agreement(folder, [*NUMBERS, *WHOLE], CATEGORIES, MEMORY)


OURS: dict[str, Callable[[Path], object]] = {
    "decode every column once": decode,
    "rules": rules,
    "decode every column once, CSV": decode_csv,
    "rules, CSV": rules_csv,
    "decode the drift columns of both": decode_numbers_twice,
    "drift, two files": drift_of_two_files,
    "drift, stored profile": drift_from_a_profile,
    "leakage": leakage,
    "exact distances, scipy": exact,
}
IMPORTED = ("duckdb", "numpy", "mlcicd.data.checks", "mlcicd.data.drift", "mlcicd.data.leakage")
# Name in the table: the task of data_peers.py, and the suffix of its file.
PEERS = {
    "Great Expectations, pandas": ("great_expectations", ".parquet"),
    "Pandera, pandas": ("pandera_pandas", ".parquet"),
    "Pandera, polars": ("pandera_polars", ".parquet"),
    "Pointblank, polars": ("pointblank", ".parquet"),
    "Great Expectations, pandas, CSV": ("great_expectations", ".csv"),
    "Pandera, pandas, CSV": ("pandera_pandas", ".csv"),
    "Pandera, polars, CSV": ("pandera_polars", ".csv"),
    "Pointblank, polars, CSV": ("pointblank", ".csv"),
    "Evidently, Jensen-Shannon": ("evidently_js", ".parquet"),
    "Evidently, Wasserstein": ("evidently_wasserstein", ".parquet"),
}
PACKAGES = ("great_expectations", "pandera", "pointblank", "evidently")
# Evidently 0.7 does not import with pandas 3.
INSTALLED = (*PACKAGES, "polars", "pyarrow", "pandas<3")
FLOOR = {
    "rules": "decode every column once",
    "rules, CSV": "decode every column once, CSV",
    "drift, two files": "decode the drift columns of both",
    "drift, stored profile": "drift, two files",
    **{name: "rules, CSV" if name.endswith("CSV") else "rules" for name in PEERS},
    **{name: "drift, two files" for name in PEERS if name.startswith("Evidently")},
}


def install_peers(folder: Path) -> tuple[str, list[str]]:
    """Makes the peers' environment once; gives its interpreter and the versions in it."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *INSTALLED], check=True)
    code = f"from importlib.metadata import version as v\nfor p in {PACKAGES!r}: print(p, v(p))"
    done = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    return str(python), done.stdout.split("\n")[:-1]


def measure(name: str, folder: Path, peers: str, patience: float) -> dict[str, Any] | str:
    """Wall s, CPU s and peak MiB of one task in a new process, or why there are none; imports are not timed."""
    command = [sys.executable, __file__, "--task", name, "--folder", str(folder)]
    if name in PEERS:
        command = [peers, str(HERE / "data_peers.py"), PEERS[name][0], str(folder), PEERS[name][1]]
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=patience if name in PEERS else None
        )
    except subprocess.TimeoutExpired:
        return f"not within {patience:g} s"
    except subprocess.CalledProcessError as error:
        return (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1][:100]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def beside_evidently(measured: dict[str, dict[str, Any]]) -> str:
    """Evidently's Jensen-Shannon distances against ours, and against its own definition computed from the same data."""
    theirs = measured["Evidently, Jensen-Shannon"]["answer"]
    exact = measured["exact distances, scipy"]["answer"]
    ours = {column: result["js"] for column, result in measured["drift, two files"]["answer"].items()}
    told = []
    for what, values in (
        ("ours (js/1)", ours),
        ("its definition from all values", exact["sturges"]),
        ("its definition from our cells", exact["sturges of cells"]),
    ):
        apart = {c: abs(theirs[c] - values[c]) for c in theirs if c in values}
        worst = max(apart, key=lambda c: apart[c])
        told.append(f"{what} {apart[worst]:.1e} ({worst})")
    return f"Evidently's Jensen-Shannon distance differs at most: from {', from '.join(told)}"


def run_task(name: str, folder: Path) -> None:
    from data_peers import peak_mib

    for module in IMPORTED:  # so that it is not measured, as the peers' is not
        import_module(module)
    task = OURS[name]
    wall, cpu = time.perf_counter(), time.process_time()
    answer = task(folder)
    result = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "mib": peak_mib(),
        "answer": answer if isinstance(answer, dict) else None,
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--alone", action="store_true", help="Without peers.")
    parser.add_argument("--patience", type=float, default=3600.0, help="Seconds that one peer may take.")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="Measurements to leave out.")
    parser.add_argument("--task")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.task:
        run_task(options.task, options.folder)
        return
    peers, versions = ("", []) if options.alone else install_peers(HERE.parent / ".venv-bench")
    if versions:
        print(", ".join(versions))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        generate(folder / "a.parquet", options.rows, 0.0)
        generate(folder / "b.parquet", options.rows, 0.1)
        names = [name for name in (*OURS, *(PEERS if peers else ())) if name not in options.without]
        measured: dict[str, dict[str, Any]] = {}
        stopped: list[str] = []
        size = [(folder / f"a.{suffix}").stat().st_size / 1e6 for suffix in ("parquet", "csv")]
        sizes = f"{size[0]:.0f} MB of Parquet, {size[1]:.0f} MB of CSV"
        print(f"{options.rows:,} rows x 20 columns, {sizes}, memory limit {MEMORY}")
        print(f"{'':34}{'wall s':>8}{'CPU s':>8}{'MiB':>7}  ratios of wall, CPU, memory")
        for name in names:
            got = measure(name, folder, peers, options.patience)
            if isinstance(got, str):
                print(f"{name:34}  {got}", flush=True)
                stopped += [name] if got.startswith("not within") else []
                continue
            measured[name] = got
            floor = FLOOR.get(name)
            ratio = ""
            if floor in measured:
                ratios = [f"{got[k] / measured[floor][k]:.2f}" for k in ("wall", "cpu", "mib")]
                ratio = f"{', '.join(ratios)} x {floor}"
            print(
                f"{name:34}{got['wall']:8.2f}{got['cpu']:8.2f}{got['mib']:7.0f}  {ratio} {_answer(name, measured)}",
                flush=True,
            )
        if {"exact distances, scipy", "Evidently, Jensen-Shannon"} <= set(measured):
            print(beside_evidently(measured))
        print("Bars, set for 10,000,000 rows:")
        print("\n".join(judged(measured, options.patience, stopped)))


def _answer(name: str, measured: dict[str, dict[str, Any]]) -> str:
    if name in ("drift, two files", "exact distances, scipy", "Evidently, Jensen-Shannon"):
        return ""  # told below the table
    answer = measured[name]["answer"] or {}
    if name == "Evidently, Wasserstein":
        ours = measured["drift, two files"]["answer"]
        apart = max(abs(answer[c] - ours[c]["wasserstein"]) for c in answer if c not in CATEGORIES)
        return f"differs from ours by at most {apart:.1e}"
    return ", ".join(f"{key} {value}" for key, value in answer.items())


if __name__ == "__main__":
    main()
