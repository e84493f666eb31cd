"""Whether cost grows linearly and memory stays: rules and drift on one part and on all ten of one generated table.

    python benchmarks/data_scale.py [--rows 100000000] [--memory 1GB] [--folder FOLDER]

Seven columns are generated in ten parts, each a Parquet file, under one folder: a key, numbers with and without gaps, a
whole number, a category, text and a label. The first part is drawn, the others are its rows under keys of their own.
Each measurement runs in a process of its own. Prints CPU seconds a row, as a ratio to those of the first part, and the
peak of memory; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

PARTS = (1, 10)
SCHEMA = """
version: 1
key: [id]
columns:
  id: {type: int, min: 0, unique: true}
  n: {type: float, min: -100, max: 100}
  gaps: {type: float, min: 0, max: 1, nulls: 0.1}
  whole: {type: int, min: 0, max: 9990, mostly: 0.99}
  kind: {type: string, in: [v0, v1, v2, v3, v4, v5, v6, v7, v8]}
  text: {type: string, pattern: '[0-9a-f]{8}', length: {min: 8, max: 8}}
  label: {type: bool}
rules:
  - {name: order, expression: whole >= 0 and n < 100}
"""


def generate(folder: Path, rows: int) -> None:
    """Ten parts of equal size, written one after the other."""
    import duckdb

    size = rows // max(PARTS)
    with duckdb.connect(config={"memory_limit": "1GB", "threads": 2}) as connection:
        connection.execute("SELECT setseed(0.5)")
        columns = (
            "range AS id, CAST(sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()) AS FLOAT)::DOUBLE AS n, "
            "CASE WHEN random() < 0.05 THEN NULL ELSE round(random(), 4) END AS gaps, "
            "CAST(floor(random() * 10000) AS INTEGER) AS whole, "
            "'v' || CAST(floor(random() * 9) AS INTEGER) AS kind, "
            "printf('%08x', hash(range) % 4294967296) AS text, random() < 0.2 AS label"
        )
        first = folder / "part-00.parquet"
        connection.execute(f"COPY (SELECT {columns} FROM range({size})) TO '{first}' (FORMAT parquet)")
        for part in range(1, max(PARTS)):
            query = f"SELECT id + {part * size} AS id, * EXCLUDE id FROM '{first}'"
            connection.execute(f"COPY ({query}) TO '{folder / f'part-{part:02}.parquet'}' (FORMAT parquet)")


def run_task(name: str, pattern: str, memory: str) -> dict[str, float]:
    from data_peers import peak_mib

    from mlcicd.data.checks import run_checks
    from mlcicd.data.drift import drift
    from mlcicd.data.profile import Profile, profile
    from mlcicd.data.schema import parse_schema
    from mlcicd.data.source import open_source, quote

    import_module("numpy")
    folder = Path(pattern).parent
    wall, cpu = time.perf_counter(), time.process_time()
    source = open_source(Path(pattern), memory_limit=memory)
    if name == "decode":
        source.fetch(f"SELECT {', '.join(f'count(hash({quote(n)}))' for n in source.columns)} FROM data")
    elif name == "rules":
        checks = run_checks(source, parse_schema(SCHEMA))
        assert sum(check.status == "failed" for check in checks) == 0, [c.name for c in checks if c.status == "failed"]
    else:
        columns = ["n", "gaps", "whole", "kind"]
        if not (folder / "profile.json").exists():  # of the first part, which is the first that is measured
            (folder / "profile.json").write_text(json.dumps(profile(source, columns).to_json()))
            wall, cpu = time.perf_counter(), time.process_time()
        drift(Profile.from_json(json.loads((folder / "profile.json").read_text())), source)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "mib": peak_mib()}


def measure(folder: Path, rows: int, memory: str) -> None:
    size = rows / max(PARTS)
    print(f"{'':8}{'rows':>13}{'wall s':>8}{'CPU s':>8}{'MiB':>7}  CPU a row, against the first; against decoding")
    cpu: dict[tuple[str, int], float] = {}
    for name in ("decode", "rules", "drift"):
        for parts in PARTS:
            pattern = folder / ("part-00.parquet" if parts == 1 else "part-*.parquet")
            command = [sys.executable, __file__, "--task", name, "--folder", str(pattern), "--memory", memory]
            got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            cpu[name, parts] = got["cpu"]
            growth = got["cpu"] / parts / cpu[name, 1]
            floor = got["cpu"] / cpu["decode", parts]
            line = f"{name:8}{int(size * parts):13,}{got['wall']:8.1f}{got['cpu']:8.1f}{got['mib']:7.0f}"
            print(f"{line}  {growth:.2f}; {floor:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--memory", default="1GB", help="What the engine may hold.")
    parser.add_argument(
        "--folder", type=Path, help="Where the data is, or is to stay; a temporary folder when left out."
    )
    parser.add_argument("--task")
    options = parser.parse_args()
    if options.task:
        print(json.dumps(run_task(options.task, str(options.folder), options.memory)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not list(folder.glob("part-*.parquet")):
            generate(folder, options.rows)
        megabytes = sum(file.stat().st_size for file in folder.glob("part-*.parquet")) / 1e6
        print(f"{options.rows:,} rows x 7 columns, {megabytes:,.0f} MB of Parquet, memory limit {options.memory}")
        measure(folder, options.rows, options.memory)


if __name__ == "__main__":
    main()
