"""`mlcicd gates`: what the gates of mlcicd.yaml are worth, before a bad model asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from mlcicd.cli import cli
from mlcicd.commands_shared import plainly

_PROJECT = (
    click.option(
        "-C",
        "--working-directory",
        default=".",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the project, which holds mlcicd.yaml.",
    ),
    click.option("--profile", default="", help="Profile of mlcicd.yaml whose values override the others."),
    click.option(
        "--seed", default=0, show_default=True, type=click.IntRange(0), help="The same seed, the same answer."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output."),
    click.option("--debug", is_flag=True, help="Show tracebacks."),
)
_MODEL = click.option("--model", default="", help="A model directory to take for the champion.")
_DRAWS = click.option(
    "--draws",
    default=0,
    type=click.IntRange(0, 100_000),
    help="Resampled holdouts; 40 to 200, the fewer the larger the holdout, when 0.",
)


def _of_project(function: Callable[..., None]) -> Callable[..., None]:
    for decorate in reversed(_PROJECT):
        function = decorate(function)
    return function


@cli.group("gates")
def gates() -> None:
    """Try the gates: what they catch, what they would have stopped, and which thresholds fit."""


@gates.command("self-test")
@_MODEL
@_of_project
def self_test(working_directory: Path, profile: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Put models made bad on purpose before the gates, and the unchanged champion.

    Exit codes: 0 every bad model is stopped and the unchanged one passes; 1 not so; 3 the holdout is too small to tell.
    """
    from mlcicd.stages.gate_self_test import NAME
    from mlcicd.stages.gate_self_test import self_test as stage

    _judge(NAME, stage, options, working_directory, profile, as_json=as_json, debug=debug, table=_self_test_table)


@gates.command("backtest")
@click.option("--last", default=10, show_default=True, type=click.IntRange(1, 1000), help="Versions, the newest ones.")
@_DRAWS
@click.option(
    "--max-false-alarms",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of resampled holdouts on which the champion itself may be stopped.",
)
@_of_project
def backtest(working_directory: Path, profile: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Replay the registry's versions through the gates of now, each against the champion of its time.

    Exit codes: 0; 1 the champion against itself is stopped too often; 3 too few draws to tell.
    """
    from mlcicd.stages.gate_backtest import NAME
    from mlcicd.stages.gate_backtest import backtest as stage

    _judge(NAME, stage, options, working_directory, profile, as_json=as_json, debug=debug, table=_backtest_table)


@gates.command("suggest")
@_MODEL
@_DRAWS
@_of_project
@plainly
def suggest(
    working_directory: Path, profile: str, as_json: bool, debug: bool, model: str, draws: int, seed: int
) -> None:
    """Propose thresholds, margins and slices from the champion's own intervals and history, as YAML to paste."""
    import json
    import sys

    from mlcicd.conduct import Lines
    from mlcicd.config import load_project
    from mlcicd.stages.gate_suggest import as_yaml
    from mlcicd.stages.gate_suggest import suggest as find

    progress = Lines(sys.stderr, dated=False)
    found = find(
        load_project(working_directory, profile=profile), model=model, draws=draws, seed=seed, progress=progress
    )
    click.echo(json.dumps(found.document(), indent=2) if as_json else as_yaml(found), nl=as_json)


def _judge(
    name: str,
    stage: Callable[..., Any],
    options: dict[str, Any],
    folder: Path,
    profile: str,
    *,
    as_json: bool,
    debug: bool,
    table: Callable[[dict[str, Any]], list[str]],
) -> None:
    """Runs a stage as every other one is run, and prints its table first."""
    from functools import wraps

    from mlcicd.conduct import Invocation, conduct

    @wraps(stage)
    def with_table(project: Any, **given: Any) -> Any:
        verdict = stage(project, **given)
        if not as_json:
            click.echo("\n".join(["", *table(verdict.to_json()["details"]), ""]))
        return verdict

    conduct(lambda: (with_table, options), Invocation(name, folder, profile, as_json=as_json, debug=debug))


def _self_test_table(details: dict[str, Any]) -> list[str]:
    if "trials" not in details:
        return []
    rows = [("model", "verdict", "failed by")]
    for trial in details["trials"]:
        by = trial["failed_by"] or trial["inconclusive_by"]
        rows.append((trial["name"], trial["status"], _listed(by) if by else trial["refused"]))
    lines = [f"{details['rows']:,} rows; made out of {details['reference']}.", *_table(rows), ""]
    metrics = list(details["noise"][0]["loss"]) if details["noise"] else []
    steps = [("noise", *(f"loss {metric}" for metric in metrics), "failed", "inconclusive", "passed")]
    for rung in details["noise"]:
        shares = (f"{rung[key]:.0%}" for key in ("failed", "inconclusive", "passed"))
        steps.append((f"{rung['strength']:g}", *(_number(rung["loss"][m]) for m in metrics), *shares))
    lines += [*_table(steps, right=True), ""]
    lines += _table([("gate", "fails"), *((gate, _listed(names, 12)) for gate, names in details["gates"].items())])
    if details["not_tried"]:
        lines += [
            "",
            f"Not tried, since answers to the holdout are not enough for them: {', '.join(details['not_tried'])}.",
        ]
    return lines


def _backtest_table(details: dict[str, Any]) -> list[str]:
    if "replays" not in details:
        return []
    rows: list[tuple[str, ...]] = [("version", "against", "then", "gates of now", "by")]
    for replay in details["replays"]:
        by = replay["failed_by"] or replay["inconclusive_by"]
        told = (replay["version"], replay["against"] or "none", replay["then"], replay["status"])
        rows.append((*told, _listed(by) if by else replay["reason"]))
    lines = [f"{details['rows']:,} rows of the holdout of now.", *_table(rows), ""]
    shares: list[tuple[str, ...]] = [("resampled holdouts", "draws", "failed", "inconclusive")]
    for key, what in (("itself", "champion against itself"), ("equal", "equal models")):
        alarms = details["false_alarms"][key]
        parts = (f"{alarms[part] / alarms['draws']:.1%}" for part in ("failed", "inconclusive"))
        shares.append((what, str(alarms["draws"]), *parts))
    lines += _table(shares, right=True)
    if details["not_tried"]:
        lines += [
            "",
            f"Not replayed, since answers to the holdout are not enough for them: {', '.join(details['not_tried'])}.",
        ]
    return lines


def _number(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _listed(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most]) or "nothing"
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _table(rows: Sequence[Sequence[str]], *, right: bool = False) -> list[str]:
    """Columns of text: the first to the left, the others too, or to the right where they are numbers."""
    from mlcicd.report.markup import clean

    # Names of slices are the user's data.
    rows = [[clean(cell, limit=200) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    place = str.rjust if right else str.ljust
    return [
        "  ".join([row[0].ljust(widths[0]), *(place(c, w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
