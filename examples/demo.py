"""The whole loop on a real project: `make demo`.

Copies examples/flight-delays into a new git repository under .demo/, and lives through five changes there, as a team
would: each is a commit (the patches are in examples/changes), and each is answered by mlcicd's own command line. It
needs no network and leaves no process running.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / ".demo"
PROJECT = WORK / "flight-delays"
BIN = Path(sys.executable).parent
EVERYTHING = "validate-data,train,evaluate,register,deploy,canary"

console = Console(highlight=False)


@dataclass
class Act:
    """One change and what became of it."""

    title: str
    expected: str
    seconds: float = 0.0
    outcome: str = ""
    why: str = ""
    as_expected: bool = False
    report: Path | None = None
    stages: list[tuple[str, str, float]] = field(default_factory=list)


def environment() -> dict[str, str]:
    """The demo's own settings, and nothing of the caller's MLflow or CI."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MLCICD_", "GITHUB_", "GITLAB_"))}
    # deployment: nobody has to approve, since nobody watches a demo.
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}",
        "FLIGHTS_DEPLOY_MODE": "deployment",
        "XDG_STATE_HOME": str(WORK / "state"),
    }


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=demo", "-c", "user.email=demo@example.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(PROJECT), *identity, *arguments], check=True, stdout=subprocess.DEVNULL)


def commit(message: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", "--message", message)


def take_back() -> None:
    """Reverts the last change; what DVC recorded of it goes with it."""
    git("checkout", "--quiet", "--", ".")
    git("revert", "--no-edit", "HEAD")


def patch(name: str) -> None:
    git("apply", str(HERE / "changes" / f"{name}.patch"))


def mlcicd(*arguments: str, log: Path) -> int:
    """Runs the command line, its lines shown as they come and kept in a log."""
    command = [sys.executable, "-m", "mlcicd", *arguments]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ mlcicd {' '.join(arguments)}\n")
        child = subprocess.Popen(
            command, cwd=PROJECT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert child.stdout is not None
        with console.status("") as status:
            for line in child.stdout:
                file.write(line)
                if "•" in line:
                    said = line.partition("•")[2].strip()
                    if said.startswith("stage "):
                        console.print(f"    [dim]{said.removeprefix('stage ')}[/dim]")
                    status.update(f"[dim]{said[:100]}[/dim]")
        return child.wait()


def verdict(stage: str) -> dict[str, Any]:
    """The stage's verdict; an empty one when the pipeline ended before it."""
    path = PROJECT / ".mlcicd" / "verdicts" / f"{stage}.json"
    if not path.exists():
        return {"status": "none", "summary": f"{stage} did not run", "outputs": {}, "details": {"metrics": []}}
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def keep_report(act: Act, name: str) -> None:
    act.report = WORK / "reports" / f"{name}.html"
    act.report.parent.mkdir(exist_ok=True)
    shutil.copy(PROJECT / ".mlcicd" / "report.html", act.report)


def timings() -> list[tuple[str, str, float]]:
    """Stage, status and seconds of the verdicts that stand."""
    from datetime import datetime

    found = []
    for path in (PROJECT / ".mlcicd" / "verdicts").glob("*.json"):
        document = json.loads(path.read_text("utf-8"))
        began, ended = (datetime.fromisoformat(document[key]) for key in ("started", "finished"))
        if path.stem not in ("run", "report"):
            found.append((began, path.stem, document["status"], (ended - began).total_seconds()))
    return [(stage, status, seconds) for _, stage, status, seconds in sorted(found)]


def play(act: Act, name: str, body: Callable[[Act, Path], None]) -> Act:
    console.print(f"\n[bold]{act.title}[/bold]")
    started = time.monotonic()
    body(act, WORK / "logs" / f"{name}.log")
    act.seconds = time.monotonic() - started
    act.stages = timings()
    keep_report(act, name)
    mark = "[green]✓[/green]" if act.as_expected else "[red]✗ not what was expected:[/red]"
    console.print(f"  {mark} {act.outcome}  [dim]{act.seconds:.0f} s[/dim]")
    if act.why:
        console.print(f"    [dim]{act.why}[/dim]")
    return act


def first(act: Act, log: Path) -> None:
    code = mlcicd("run", "--stages", EVERYTHING, log=log)
    act.outcome = "version 1 is champion and has the traffic"
    act.why = metric_sentence()
    act.as_expected = code == 0 and verdict("deploy")["outputs"].get("model-version") == "1"
    commit("What DVC recorded")


def better(act: Act, log: Path) -> None:
    patch("better")
    commit("Gradient boosting, and the weather")
    code = mlcicd("run", "--stages", EVERYTHING, log=log)
    canary = verdict("canary")
    act.outcome = canary["summary"]
    act.why = metric_sentence()
    act.as_expected = code == 0 and canary["outputs"].get("decision") == "promote"
    commit("What DVC recorded")


def shuffled(act: Act, log: Path) -> None:
    patch("shuffled")
    commit("Shuffle the rows before training")
    code = mlcicd("run", "--stages", EVERYTHING, log=log)
    evaluation = verdict("evaluate")
    act.outcome = f"stopped by the gate: exit code {code}, nothing registered"
    act.why = evaluation["summary"]
    registered = (PROJECT / ".mlcicd" / "verdicts" / "register.json").exists()
    act.as_expected = code == 1 and evaluation["status"] == "failed" and not registered
    take_back()


def fragile(act: Act, log: Path) -> None:
    patch("no-imputer")
    commit("Interactions instead of the imputer: the trees take missing values themselves")
    code = mlcicd("run", "--stages", EVERYTHING, log=log)
    canary = verdict("canary")
    act.outcome = canary["summary"]
    act.why = f"better on the holdout ({metric_sentence()}), and it errs on live requests that lack a reading"
    act.as_expected = code == 1 and canary["outputs"].get("decision") == "rollback"
    take_back()


def drifted(act: Act, log: Path) -> None:
    code = mlcicd("monitor", "--ignore-breach", log=log)
    seen = verdict("monitor")
    console.print(f"    [dim]monitor: {seen['summary']}[/dim]")
    if code != 0 or seen["outputs"].get("action") != "retrain":
        act.outcome = "no retraining was asked for"
        return
    code = mlcicd("run", "--refresh", "--stages", EVERYTHING, log=log)
    commit("Retrain on newer months")
    canary = verdict("canary")
    act.outcome = f"retrained: {canary['summary']}"
    act.why = metric_sentence()
    act.as_expected = code == 0 and canary["outputs"].get("decision") == "promote"


def metric_sentence() -> str:
    """ROC AUC of candidate and champion on the same holdout rows, with the paired interval of their difference."""
    found = next((m for m in verdict("evaluate")["details"].get("metrics", []) if m["name"] == "roc_auc"), None)
    if found is None:
        return "no evaluation"
    if found["champion"] is None:
        low, high = found["candidate_interval"]
        return f"ROC AUC {found['candidate']:.3f} [{low:.3f}, {high:.3f}]"
    low, high = found["difference_interval"]
    return (
        f"ROC AUC {found['candidate']:.3f} against {found['champion']:.3f}: "
        f"{found['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
    )


ACTS: list[tuple[str, Act, Callable[[Act, Path], None]]] = [
    ("1-first", Act("1  The first model", "champion"), first),
    ("2-better", Act("2  A better one", "promoted by the canary"), better),
    ("3-shuffled", Act("3  A worse one: its labels are shuffled", "stopped by the gate"), shuffled),
    ("4-fragile", Act("4  One that fails only in production", "taken back by the canary"), fragile),
    ("5-drifted", Act("5  June comes, and it is not like spring", "retrained"), drifted),
]


def stop() -> None:
    """Takes down the servers and routers that the demo's deployments started."""
    command = [sys.executable, "-m", "mlcicd", "stop"]
    subprocess.run(command, cwd=PROJECT, env=environment(), check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def stage_set() -> Iterator[None]:
    """A fresh copy of the example in a repository of its own; whatever was started there is stopped at the end."""
    if PROJECT.exists():
        stop()
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK / "logs").mkdir(parents=True)
    ignored = shutil.ignore_patterns("data", "model", "mlartifacts", "mlflow.db*", ".mlcicd", "tmp", "cache", "*.json")
    shutil.copytree(HERE / "flight-delays", PROJECT, ignore=ignored)
    git("init", "--quiet", "--initial-branch=main")
    commit("The project")
    try:
        yield
    finally:
        stop()


def show_summary(acts: list[Act], seconds: float) -> None:
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    table.add_column("")
    table.add_column("what came")
    table.add_column("what became of it")
    table.add_column("s", justify="right")
    for act in acts:
        mark = "[green]✓[/green]" if act.as_expected else "[red]✗[/red]"
        table.add_row(mark, act.title[3:], act.outcome, f"{act.seconds:.0f}")
    console.print()
    console.print(Panel(table, title="flight-delays", subtitle=f"{seconds:.0f} s in all", padding=(1, 2)))
    for act in acts:
        console.print(f"[dim]{act.title[3:]}: {', '.join(f'{s} {t:.1f}' for s, _, t in act.stages)} (s)[/dim]")
    caught = next((act.report for act in acts if act.title.startswith("4")), None) or acts[-1].report
    if caught is not None:
        console.print(f"\nThe report of the one that was taken back: [bold]{caught.relative_to(ROOT)}[/bold]")
        console.print(f"[dim]All reports: {caught.parent.relative_to(ROOT)}/   What was printed: .demo/logs/[/dim]")


def main() -> int:
    console.print(Panel("Five changes to a model that predicts late flights, each answered by mlcicd.", padding=(0, 2)))
    started = time.monotonic()
    acts: list[Act] = []
    with stage_set():
        for name, act, body in ACTS:
            acts.append(play(act, name, body))
            if not act.as_expected:
                break
    show_summary(acts, time.monotonic() - started)
    if len(acts) == len(ACTS) and all(act.as_expected for act in acts):
        return 0
    console.print(f"[red]The demo did not go as it should.[/red] Look at .demo/logs/{ACTS[len(acts) - 1][0]}.log")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
