"""`mlcicd train` of an unchanged project beside the whole training: wall time, with and without the data.

    python benchmarks/skipped.py [--rounds 5]

The project is examples/flight-delays in a Git repository of its own. It is trained once (its data made, the model
fitted and uploaded), its dvc.lock committed, and trained again: where it is (*data here*), and in a new clone that has
neither data nor model, with the same tracking store (*data not here*). Both are to end `skipped`, and the clone is to
be without data afterwards, or the script fails. Each round is a process of its own, start of the interpreter and
imports included; the two kinds take turns, and the median of each counts. The ratio is what compares: seconds are the
machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "flight-delays"
LEFT_BEHIND = (
    "data",
    "model",
    ".model.*",
    "mlruns",
    "mlartifacts",
    "mlflow.db*",
    "__pycache__",
    "metrics.json",
    ".mlcicd",
)
# What the requirement names, for a warm start.
LIMIT_SECONDS = 10


def environment(folder: Path) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MLCICD_", "GITHUB_", "GITLAB_", "GIT_"))
    }
    root = str(Path(__file__).parents[1])
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH", "")])),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "dvc"),
    }


def git(root: Path, *words: str) -> None:
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)


def train(root: Path, env: dict[str, str], expected: str) -> float:
    """Seconds that `mlcicd train` took.

    Raises:
        SystemExit: it did not end as expected.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "mlcicd", "train"], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    verdict = json.loads((root / ".mlcicd" / "verdicts" / "train.json").read_text(encoding="utf-8"))
    if done.returncode or verdict["status"] != expected:
        raise SystemExit(f"{root}: expected {expected}, got {verdict['status']}: {verdict['summary']}\n{done.stderr}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="mlcicd-skipped-") as temporary:
        folder = Path(temporary)
        project, clone = folder / "project", folder / "clone"
        env = environment(folder)
        shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        git(folder, "init", "--quiet", "--initial-branch=main", str(project))
        whole = train(project, env, "passed")
        print(f"whole training: {whole:.1f} s wall", flush=True)
        git(project, "add", "--all")
        git(project, "commit", "--quiet", "--message", "trained")
        git(folder, "clone", "--quiet", str(project), str(clone))
        seconds: dict[str, list[float]] = {"data here": [], "data not here": []}
        for _ in range(rounds):
            seconds["data here"].append(train(project, env, "skipped"))
            seconds["data not here"].append(train(clone, env, "skipped"))
        if (clone / "data").exists():
            raise SystemExit("the clone has fetched or made data to find out that nothing changed")
    for kind, found in seconds.items():
        middle = statistics.median(found)
        within = "yes" if middle <= LIMIT_SECONDS else "NO"
        print(
            f"skipped, {kind}: {middle:.2f} s wall (median of {rounds}, {min(found):.2f} to {max(found):.2f}), "
            f"{middle / whole:.1%} of the training; within {LIMIT_SECONDS} s: {within}"
        )


if __name__ == "__main__":
    main()
