"""Our scanner beside picklescan, modelscan and fickling, on generated malicious and genuine models.

    python benchmarks/scan.py [--keep FOLDER]

The peers are installed into a virtual environment of their own (`.venv-scan`). Each is asked as its documentation says,
by its Python interface, in one process a tool; a model is caught when the tool reports anything at all about it; that
a tool could not read it is counted by itself. Times are of the scans alone. Prints tables, asserts nothing. The
payloads are harmless, and nothing is loaded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "tests" / "supply_chain"
PEERS = ("picklescan", "modelscan", "fickling")
UNDECLARED = ("typing_extensions",)  # fickling imports it and does not ask for it
_LARGE = 100_000_000

# Runs in the peers' environment: `python -c PEER_CODE TOOL FOLDER` prints one JSON object, entry name to [said, s].
PEER_CODE = """
import contextlib, io, json, logging, sys, time
from pathlib import Path
logging.disable(logging.CRITICAL)
tool, folder = sys.argv[1], Path(sys.argv[2])

def picklescan(path):
    from picklescan.scanner import scan_directory_path, scan_file_path
    result = (scan_directory_path if path.is_dir() else scan_file_path)(str(path))
    return "flagged" if result.issues_count else "error" if result.scan_err else "clean"

def modelscan(path):
    from modelscan.modelscan import ModelScan
    result = ModelScan().scan(str(path))
    return "flagged" if result["summary"]["total_issues"] else "error" if result["errors"] else "clean"

def fickling(path):
    import zipfile
    from fickling import scan_file
    from fickling.loader import scan_zip_archive
    said = "clean"
    for file in (sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]):
        if path.is_dir() and file.suffix not in (".pkl", ".pickle", ".joblib", ".bin", ".pt", ".pth", ".skops"):
            continue
        try:
            zipped = zipfile.is_zipfile(file)
            results = scan_zip_archive(str(file)).values() if zipped else [scan_file(str(file))]
        except Exception:  # counted apart, as "not read"
            said = "error"
            continue
        if any(not result.is_safe for result in results):
            return "flagged"
    return said

answers = {}
for path in sorted(folder.iterdir()):
    started = time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            said = {"picklescan": picklescan, "modelscan": modelscan, "fickling": fickling}[tool](path)
    except Exception:  # a peer that stops with an error is counted apart, as "not read"
        said = "error"
    answers[path.name] = [said, time.perf_counter() - started]
print(json.dumps(answers))
"""
OUR_CODE = """
import json, sys, time
from pathlib import Path
from mlcicd.supply_chain.scanner import scan_model
answers = {}
for path in sorted(Path(sys.argv[2]).iterdir()):
    started = time.perf_counter()
    said = "clean" if scan_model(path).clean else "flagged"
    answers[path.name] = [said, time.perf_counter() - started]
print(json.dumps(answers))
"""


def install_peers(folder: Path) -> tuple[str, list[str]]:
    """Makes the peers' environment once; gives its interpreter and the versions in it."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS, *UNDECLARED], check=True)
    code = f"from importlib.metadata import version as v\nfor p in {PEERS!r}: print(p, v(p))"
    done = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    return str(python), done.stdout.split("\n")[:-1]


def ask(python: str, code: str, tool: str, folder: Path) -> dict[str, tuple[str, float]]:
    done = subprocess.run([python, "-c", code, tool, str(folder)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def count(answers: dict[str, tuple[str, float]], what: str) -> int:
    return sum(said == what for said, _ in answers.values())


def write_large(folder: Path) -> None:
    """100 MB models whose bytes are arrays, as those of large models are."""
    import joblib
    import numpy as np

    weights = np.random.default_rng(0).normal(size=_LARGE // 8)
    folder.mkdir()
    joblib.dump({"weights": weights}, folder / "joblib.joblib")
    np.save(folder / "numpy.npy", weights)
    np.savez(folder / "numpy.npz", weights=weights)


def median_of_three(python: str, code: str, tool: str, folder: Path) -> dict[str, float]:
    runs = [ask(python, code, tool, folder) for _ in range(3)]
    return {name: statistics.median(run[name][1] for run in runs) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="Write the models there, and leave them.")
    arguments = parser.parse_args()
    peers, versions = install_peers(HERE.parent / ".venv-scan")
    print(", ".join(versions))
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.keep or Path(temporary)
        for kind in ("hostile", "genuine"):
            if not (work / kind).exists():
                subprocess.run(
                    [sys.executable, str(MODELS / f"{kind}_models.py"), str(work / kind)],
                    check=True,
                    capture_output=True,
                )
        if not (work / "large").exists():
            write_large(work / "large")
        tools = [("mlcicd", sys.executable, OUR_CODE), *((peer, peers, PEER_CODE) for peer in PEERS)]
        rows, large = [], {}
        for tool, python, code in tools:
            started = time.perf_counter()
            hostile, genuine = (ask(python, code, tool, work / kind) for kind in ("hostile", "genuine"))
            folders = [n for n in hostile if n.startswith("mlflow-")]
            rows.append(
                f"| {tool} | {count(hostile, 'flagged')} of {len(hostile)} | {count(hostile, 'error')} "
                f"| {count({n: hostile[n] for n in folders}, 'flagged')} of {len(folders)} "
                f"| {count(genuine, 'flagged')} of {len(genuine)} | {count(genuine, 'error')} "
                f"| {1000 * statistics.mean(s for _, s in genuine.values()):.1f} ms |"
            )
            missed = sorted(n for n, (said, _) in hostile.items() if said == "clean")
            wrong = sorted(n for n, (said, _) in genuine.items() if said == "flagged")
            print(f"{tool}: {time.perf_counter() - started:.0f} s; missed {missed}; falsely flagged {wrong}")
            large[tool] = median_of_three(python, code, tool, work / "large")
        print("\n| scanner | caught | not read | MLflow folders | genuine flagged | not read | mean of genuine |")
        print("|---|---|---|---|---|---|---|")
        print("\n".join(rows))
        names = sorted(next(iter(large.values())))
        print(f"\n| 100 MB | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
        for tool, seconds in large.items():
            print(f"| {tool} | {' | '.join(f'{1000 * seconds[n]:.0f} ms' for n in names)} |")


if __name__ == "__main__":
    main()
