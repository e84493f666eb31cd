"""Rules and drift on generated Parquet, as ratios to the time the engine needs to decode every column once.

    python benchmarks/data.py [--rows 1000000] [--peers]

Each measurement runs in a process of its own, because peak memory is a process's. Peers run where they are installed
and are left out where not. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

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
        connection.execute("SELECT setseed(0.5)")
        connection.execute(f"COPY (SELECT {', '.join(columns)} FROM range({rows})) TO '{path}' (FORMAT parquet)")


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


def decode(folder: Path) -> object:
    from mlcicd.data.source import open_source, quote

    source = open_source(folder / "a.parquet", memory_limit=MEMORY)
    return source.fetch(f"SELECT {', '.join(f'count(hash({quote(n)}))' for n in source.columns)} FROM data")


def decode_numbers_twice(folder: Path) -> object:
    from mlcicd.data.source import open_source

    parts = [f"sum({n})" for n in (*NUMBERS, *WHOLE)] + [f"count(hash({n}))" for n in CATEGORIES]
    return [
        open_source(folder / f, memory_limit=MEMORY).fetch(f"SELECT {', '.join(parts)} FROM data")
        for f in ("a.parquet", "b.parquet")
    ]


def rules(folder: Path) -> object:
    from mlcicd.data.checks import run_checks
    from mlcicd.data.schema import parse_schema
    from mlcicd.data.source import open_source

    checks = run_checks(open_source(folder / "a.parquet", memory_limit=MEMORY), parse_schema(schema()))
    return {"checks": len(checks), "failed": sum(check.status == "failed" for check in checks)}


def drift_of_two_files(folder: Path) -> object:
    from mlcicd.data.drift import drift
    from mlcicd.data.profile import profile
    from mlcicd.data.source import open_source

    columns = [*NUMBERS, *WHOLE, *CATEGORIES]
    reference = profile(open_source(folder / "a.parquet", memory_limit=MEMORY), columns)
    (folder / "profile.json").write_text(json.dumps(reference.to_json()))
    results = drift(reference, open_source(folder / "b.parquet", memory_limit=MEMORY))
    return {"first": results[0].column, "js": results[0].js}


def drift_from_a_profile(folder: Path) -> object:
    from mlcicd.data.drift import drift
    from mlcicd.data.profile import Profile
    from mlcicd.data.source import open_source

    text = (folder / "profile.json").read_text()
    results = drift(Profile.from_json(json.loads(text)), open_source(folder / "b.parquet", memory_limit=MEMORY))
    return {"first": results[0].column, "js": results[0].js, "profile_bytes": len(text)}


def leakage(folder: Path) -> object:
    from mlcicd.data.leakage import leakage_checks
    from mlcicd.data.source import open_source

    pair = [open_source(folder / f, memory_limit=MEMORY) for f in ("a.parquet", "b.parquet")]
    return len(leakage_checks(*pair, keys=["id"], time="t", target="label", features=[*NUMBERS, *CATEGORIES]))


def pandera_polars(folder: Path) -> object:
    import pandera.polars as pa
    import polars as pl

    checks = {n: pa.Column(float, pa.Check.in_range(-100, 200), nullable=True) for n in NUMBERS}
    checks |= {n: pa.Column(int, pa.Check.in_range(0, 9990)) for n in WHOLE}
    checks |= {n: pa.Column(str, pa.Check.isin([f"v{i}" for i in range(19)])) for n in CATEGORIES}
    checks["id"] = pa.Column(int, unique=True)
    frame = pl.read_parquet(folder / "a.parquet")
    try:
        pa.DataFrameSchema(checks).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        return len(error.schema_errors)
    return 0


OURS: dict[str, Callable[[Path], object]] = {
    "decode every column once": decode,
    "rules": rules,
    "decode the drift columns of both": decode_numbers_twice,
    "drift, two files": drift_of_two_files,
    "drift, stored profile": drift_from_a_profile,
    "leakage": leakage,
}
PEERS: dict[str, tuple[str, Callable[[Path], object]]] = {"pandera-polars, some rules": ("pandera", pandera_polars)}
FLOOR = {
    "rules": "decode every column once",
    "drift, two files": "decode the drift columns of both",
    "drift, stored profile": "drift, two files",
    "pandera-polars, some rules": "rules",
}


def measure(name: str, folder: Path) -> dict[str, float]:
    """Wall s, CPU s and peak MiB of one task in a new process; imports are not counted in the times."""
    command = [sys.executable, __file__, "--task", name, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_task(name: str, folder: Path) -> None:
    import duckdb  # noqa: F401  (so that its import is not measured)

    task = OURS.get(name) or PEERS[name][1]
    wall, cpu = time.perf_counter(), time.process_time()
    answer = task(folder)
    result = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "answer": answer if isinstance(answer, dict | int) else None,
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--task")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.task:
        run_task(options.task, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        generate(folder / "a.parquet", options.rows, 0.0)
        generate(folder / "b.parquet", options.rows, 0.1)
        names = [*OURS, *(n for n, (module, _) in PEERS.items() if options.peers and find_spec(module))]
        measured = {}
        size = (folder / "a.parquet").stat().st_size / 1e6
        print(f"{options.rows:,} rows x 20 columns, {size:.0f} MB of Parquet, memory limit {MEMORY}")
        print(f"{'':34}{'wall s':>8}{'CPU s':>8}{'MiB':>7}  ratio of CPU")
        for name in names:
            measured[name] = got = measure(name, folder)
            floor = FLOOR.get(name)
            ratio = f"{got['cpu'] / measured[floor]['cpu']:.2f} x {floor}" if floor else ""
            print(f"{name:34}{got['wall']:8.2f}{got['cpu']:8.2f}{got['mib']:7.0f}  {ratio} {got['answer'] or ''}")


if __name__ == "__main__":
    main()
