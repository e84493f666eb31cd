"""Commands that are not stages: starting a project, looking at it, and its data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mlcicd.cli import canary_group, cli, data_group
from mlcicd.commands_shared import FOLDER, JSON, NAMESPACE, PROFILE, plainly


@cli.command("init")
@FOLDER
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
@click.option("--uses", default="", help="Use actions from OWNER/REPOSITORY@REF instead of the pinned release.")
@plainly
def init(working_directory: Path, force: bool, uses: str) -> None:
    """Write a starter mlcicd.yaml (if there is none) and the workflows into a repository."""
    from mlcicd.scaffold import scaffold

    for path in scaffold(working_directory.resolve(), force=force, uses=uses):
        click.echo(f"wrote {path}")
    click.echo("Next: edit mlcicd.yaml, then `mlcicd run --stages validate-data,train,evaluate`.")


@cli.command("schema")
@click.argument("document", type=click.Choice(["config", "verdict"]))
def schema(document: str) -> None:
    """Print the JSON Schema of mlcicd.yaml or of the verdict document."""
    if document == "config":
        from mlcicd.config.schema import json_schema
    else:
        from mlcicd.core.verdict import json_schema
    click.echo(json.dumps(json_schema(), indent=2))


@data_group.command("infer")
@click.argument("data")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write there instead of standard output.")
@NAMESPACE
@plainly
def infer(data: str, output: Path | None, namespace: str) -> None:
    """Write a commented schema.yaml from a reference data set: a file, a remote file, or a table.

    \b
    mlcicd data infer data/train.parquet -o schema.yaml
    mlcicd data infer s3://lake/flights.parquet
    mlcicd data infer table:flights@FLIGHTS_DB   # whose URL is in the variable FLIGHTS_DB
    """
    from mlcicd.core.errors import ConfigError
    from mlcicd.core.files import write_atomic
    from mlcicd.data.infer import infer_schema
    from mlcicd.stages.located import located

    if output is not None and output.exists():
        raise ConfigError("it is there already", where=str(output), remedy="remove it, or name another file")
    with located(data, os.environ, namespace=namespace) as source:
        text = infer_schema(source)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomic(output, text)
        click.echo(f"wrote {output}")


@cli.command("stop")
@FOLDER
@click.option("--environment", default="", help="Environment of deploy.environments; all of them when empty.")
@plainly
def stop(working_directory: Path, environment: str) -> None:
    """Take down what `deploy` started on this machine; nothing is left running."""
    from mlcicd.config import load_project
    from mlcicd.stages.places import place

    project = load_project(working_directory)
    for name in [environment] if environment else project.config.deploy.environments:
        place(project, name).target.stop()
        click.echo(f"stopped {name}")


@cli.command("reload")
@FOLDER
@PROFILE
@click.option("--environment", default="", help="Environment of deploy.environments; the last one when empty.")
@plainly
def reload(working_directory: Path, profile: str, environment: str) -> None:
    """Give servers that run the token, log, limits and port of today's mlcicd.yaml, and lose no request."""
    from mlcicd.config import load_project
    from mlcicd.core.errors import ConfigError
    from mlcicd.stages.places import place
    from mlcicd.targets.base import Reloading

    where = place(load_project(working_directory, profile=profile), environment)
    if not isinstance(where.target, Reloading):
        raise ConfigError(
            f"the target {where.settings.target!r} can not give new settings to servers that run",
            where=f"deploy.environments.{where.name}",
            remedy="deploy again, or have the platform do it",
        )
    where.target.reload()
    status = where.target.status()
    click.echo(f"renewed {where.name}: {status.url}" if status.processes else f"nothing is deployed in {where.name}")


_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="mlcicd.yaml, or a file that holds only its section canary. That of this folder, if there is one.",
)
_PROFILE = click.option("--profile", default="", help="Profile of the configuration whose values override the others.")


def _champion_options(function: Callable[..., None]) -> Callable[..., None]:
    for decorate in (
        click.option("--rate", "rates", multiple=True, metavar="NAME=RATE", help="Champion's rate of another metric."),
        click.option("--error-rate", type=float, help="Champion's error rate, between 0 and 1."),
        click.option("--requests-per-minute", type=float, help="Traffic of both versions together."),
        click.option("--windows", type=click.Path(path_type=Path), help="Recorded windows to learn all of this from."),
    ):
        function = decorate(function)
    return function


def _canary_section(config: Path | None, profile: str) -> Any:
    from mlcicd.config.load import FILE_NAME
    from mlcicd.stages.canary_tools import canary_settings

    of_group = _of_group()
    here = Path(of_group.get("working_directory", ".")) / FILE_NAME
    return canary_settings(config or (here if here.exists() else None), profile or of_group.get("profile", ""))


def _of_group() -> dict[str, Any]:
    """Options that stand before the subcommand: `mlcicd canary --working-directory DIR replay`."""
    parent = click.get_current_context().parent
    return parent.params if parent is not None else {}


def _say(answer: Any, as_json: bool) -> None:
    as_json = as_json or bool(_of_group().get("as_json"))
    click.echo(json.dumps(answer.document, indent=2) if as_json else "\n".join(answer.lines))
    if answer.exit_code:
        raise SystemExit(int(answer.exit_code))


def _known_champion(
    settings: Any, windows: Path | None, requests_per_minute: float | None, error_rate: float | None, rates: Any
) -> Any:
    from mlcicd.core.errors import ConfigError
    from mlcicd.stages.canary_tools import known_champion

    named = {} if error_rate is None else {"errors": error_rate}
    for text in rates:
        name, _, number = text.partition("=")
        try:
            named[name] = float(number)
        except ValueError:
            raise ConfigError(f"--rate takes NAME=RATE, such as clicked=0.3, not {text!r}") from None
    return known_champion(settings, windows=windows, requests_per_minute=requests_per_minute, rates=named)


@canary_group.command("replay")
@click.option("--windows", required=True, type=click.Path(path_type=Path), help="Windows as JSON lines or CSV.")
@_CONFIG
@_PROFILE
@click.option("--labels", type=click.Path(path_type=Path), help="Late outcomes, if not in the file of windows.")
@click.option("--to-the-end", is_flag=True, help="Go on after the first promotion.")
@JSON
@plainly
def canary_replay(
    windows: Path, config: Path | None, profile: str, labels: Path | None, to_the_end: bool, as_json: bool
) -> None:
    """Judge recorded windows: the decision, when it fell, and every e-value.

    Exit codes: 0 promote; 1 roll back; 3 undecided (continue, hold or inconclusive).
    """
    from mlcicd.stages.canary_tools import replay_windows

    settings = _canary_section(config, profile)
    _say(replay_windows(windows, settings, labels=labels, to_the_end=to_the_end), as_json)


@canary_group.command("forecast")
@_champion_options
@_CONFIG
@_PROFILE
@JSON
@plainly
def canary_forecast(config: Path | None, profile: str, as_json: bool, **champion: Any) -> None:
    """Requests and minutes that each decision will need, and what can not be decided in max_duration.

    Exit codes: 0; 3 when even a canary that equals its champion could not be promoted in that time.
    """
    from mlcicd.stages.canary_tools import forecast_decisions

    settings = _canary_section(config, profile)
    _say(forecast_decisions(settings, _known_champion(settings, **champion)), as_json)


@canary_group.command("simulate")
@_champion_options
@click.option("--runs", default=200, show_default=True, type=click.IntRange(1, 100_000), help="Rollouts a scenario.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="The same seed, the same answer.")
@_CONFIG
@_PROFILE
@JSON
@plainly
def canary_simulate(config: Path | None, profile: str, as_json: bool, runs: int, seed: int, **champion: Any) -> None:
    """Draw how rollouts under this configuration end: false rollbacks, and what detection costs."""
    from mlcicd.stages.canary_simulation import operating_characteristics

    settings = _canary_section(config, profile)
    known = _known_champion(settings, **champion)
    _say(operating_characteristics(settings, known, runs=runs, seed=seed), as_json)
