"""Commands over the model registry: promote, approve, history, status."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from mlcicd.cli import cli
from mlcicd.commands_shared import FOLDER, JSON, PROFILE, plainly


@cli.command("promote")
@FOLDER
@PROFILE
@click.option("--model-version", default="", help="Version to promote; the one with register.alias when empty.")
@click.option("--reason", default="", help="Why; recorded in the registry.")
@click.option("--dry-run", is_flag=True, help="Report, but change nothing.")
@JSON
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def promote(
    working_directory: Path,
    profile: str,
    model_version: str,
    reason: str,
    dry_run: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Make a registered version the champion, on its evidence; moves no traffic."""
    from mlcicd.conduct import Invocation, conduct
    from mlcicd.stages.promote import promote as stage

    conduct(
        lambda: (stage, {"model_version": model_version, "reason": reason}),
        Invocation("promote", working_directory, profile, dry_run=dry_run, as_json=as_json, debug=debug),
    )


@cli.command("approve")
@FOLDER
@PROFILE
@click.option("--reason", required=True, help="Why: what was tried and seen; recorded in the registry.")
@click.option("--environment", default="", help="Environment of deploy.environments; the last one when empty.")
@click.option("--model-version", default="", help="Version to approve; the one with register.alias when empty.")
@click.option("--revoke", is_flag=True, help="Take an approval back instead.")
@click.option("--dry-run", is_flag=True, help="Report, but record nothing.")
@JSON
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def approve(working_directory: Path, profile: str, dry_run: bool, as_json: bool, debug: bool, **options: Any) -> None:
    """Let a registered version into production, where deploy.mode is delivery; recorded with who, when and why."""
    from mlcicd.conduct import Invocation, conduct
    from mlcicd.stages.approve import approve as stage

    conduct(
        lambda: (stage, options),
        Invocation("approve", working_directory, profile, dry_run=dry_run, as_json=as_json, debug=debug),
    )


@cli.command("history")
@FOLDER
@PROFILE
@JSON
@plainly
def history(working_directory: Path, profile: str, as_json: bool) -> None:
    """Who promoted and approved what, when, why, and on which evidence."""
    from mlcicd.config import load_project
    from mlcicd.stages.history import history as moves_of
    from mlcicd.stages.history import history_lines

    moves = moves_of(load_project(working_directory, profile=profile))
    _tell(moves, None if as_json else history_lines(moves))


@cli.command("status")
@FOLDER
@PROFILE
@JSON
@plainly
def status(working_directory: Path, profile: str, as_json: bool) -> None:
    """What is champion, what is where, and since when."""
    from mlcicd.config import load_project
    from mlcicd.stages.history import state, state_lines

    now = state(load_project(working_directory, profile=profile))
    _tell(now, None if as_json else state_lines(now))


def _tell(document: object, lines: list[str] | None) -> None:
    """Prints the lines, or the document where there are none; neither is a command to a CI host that reads the log."""
    from mlcicd.ci import detect_host

    if lines is None:
        # A line that holds `##[` anywhere is one to GitHub; within JSON both say the same.
        click.echo(json.dumps(document, indent=2).replace("##[", "#\\u0023["))
        return
    host = detect_host(os.environ)
    if host.name == "plain":
        click.echo("\n".join(lines))
    else:
        host.log(lines)
