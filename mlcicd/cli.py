"""The command line: parse, call a stage, hand its verdict on.

The click options are the specification of the actions, too: each stage's `action.yml`, its typed inputs and the
README's tables are generated from them (`tools/generate.py`). An option `--name` is the input `name`, and reaches us
from an action as `MLCICD_INPUT_NAME`; empty means not given.

Nothing heavy is imported at the top: `mlcicd --help` has to answer at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import click

from mlcicd import __version__

CANARY_MODES = ("watch", "start", "step", "status", "promote", "abort", "pause")
STAGES = ("validate-data", "train", "evaluate", "register", "deploy", "canary")

COMMON_OUTPUTS = {
    "status": "passed, failed, inconclusive, ungated, skipped or error",
    "exit-code": "The command's exit code: 0, 1, 2, 3, 4, 5 or 70 (see the table of exit codes)",
    "verdict-path": "Path of the verdict (JSON), relative to the working directory",
    "report-path": "Path of the HTML report, relative to the working directory",
}


@dataclass(frozen=True)
class ActionSpec:
    """What the generator needs to know of a stage beyond its options."""

    description: str
    outputs: dict[str, str] = field(default_factory=dict)
    extras: tuple[str, ...] = ()


# Command name to what the actions' generator needs; filled by `_stage_command`.
ACTIONS: dict[str, ActionSpec] = {}


def option(name: str, **attributes: Any) -> Callable[[Any], Any]:
    """A click option that an action can set through the environment."""
    attributes.setdefault("envvar", "MLCICD_INPUT_" + name.upper().replace("-", "_"))
    return click.option(f"--{name}", **attributes)


def flag(name: str, **attributes: Any) -> Callable[[Any], Any]:
    """A true-or-false option; from an action, `'false'` is false."""
    return option(name, is_flag=True, default=False, **attributes)


_COMMON = (
    option(
        "working-directory",
        default=".",
        show_default=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the project, which holds mlcicd.yaml.",
    ),
    option("profile", default="", help="Profile of mlcicd.yaml whose values override the others."),
    flag("dry-run", help="Report, but never block, and change no registry or target."),
    click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON on standard output."),
    click.option("--debug", is_flag=True, help="Show tracebacks."),
)


def _stage_command(
    name: str, *, outputs: dict[str, str] | None = None, extras: tuple[str, ...] = (), subcommands: bool = False
) -> Callable[[Callable[..., Any]], click.Command]:
    """A command that runs the stage function it is given the name and options of.

    With `subcommands` it is a group that, without one of them, is the stage itself.
    """

    def decorate(function: Callable[..., tuple[Any, dict[str, Any]]]) -> click.Command:
        def callback(
            working_directory: Path, profile: str, dry_run: bool, as_json: bool, debug: bool, **options: Any
        ) -> None:
            if subcommands and click.get_current_context().invoked_subcommand is not None:
                return
            from mlcicd.conduct import Invocation, conduct

            conduct(
                lambda: function(**options),
                Invocation(name, working_directory, profile, dry_run=dry_run, as_json=as_json, debug=debug),
            )

        callback.__doc__ = function.__doc__
        for parameter in getattr(function, "__click_params__", []):
            # click keeps the options of a function in reverse order.
            callback.__click_params__ = [*getattr(callback, "__click_params__", []), parameter]  # type: ignore[attr-defined]
        for common in reversed(_COMMON):
            callback = common(callback)
        command: click.Command
        command = cli.group(name, invoke_without_command=True)(callback) if subcommands else cli.command(name)(callback)
        summary = (function.__doc__ or "").strip().splitlines()[0]
        ACTIONS[name] = ActionSpec(summary, outputs or {}, extras)
        return command

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mlcicd")
def cli() -> None:
    """CI/CD for machine-learning models: it catches the bad model, takes back the one that slipped through, and says
    why in one readable page.

    Exit codes: 0 passed or skipped; 1 a gate failed; 2 configuration or usage; 3 inconclusive; 4 an input is missing
    or corrupt; 5 a service failed or refused; 70 a defect of mlcicd.
    """


@_stage_command("validate-data")
def validate_data() -> tuple[Any, dict[str, Any]]:
    """Check the data against its schema, for leakage into the holdout, and for drift."""
    from mlcicd.stages import validate_data as stage

    return stage, {}


@_stage_command(
    "train",
    outputs={
        "run-id": "The MLflow run that holds the model",
        "model-path": "Path of the model directory",
        "model-digest": "Digest of the model directory",
        "cell": "With train.matrix: the cell whose model it is",
        "matrix": "With the input matrix: the cells as JSON, for `strategy.matrix` of a job",
    },
)
@flag("force", help="Train even when code, data, parameters and lock are unchanged.")
@flag("pull", help="Fetch the data with `dvc pull` first, as far as it is needed and not here.")
@flag("twice", help="Train again, and compare what the two models answer: is the training reproducible?")
@option("select", default="", help="Train this one cell of train.matrix.")
@flag("choose", help="Train nothing: choose the best among the runs of all cells of train.matrix.")
def train(force: bool, pull: bool, twice: bool, select: str, choose: bool) -> tuple[Any, dict[str, Any]]:
    """Run the training command in an MLflow run, or reuse the run of an unchanged project."""
    from mlcicd.stages import train as stage

    return stage, {"force": force, "pull": pull, "twice": twice, "select": select, "choose": choose}


@_stage_command(
    "evaluate",
    outputs={
        "run-id": "The MLflow run of the candidate",
        "champion-version": "The version the candidate was compared with; empty when there was none",
    },
)
@option(
    "model",
    default="",
    help="Model to evaluate: a directory, a file (skops, joblib, ONNX, LightGBM, XGBoost) or module:function; "
    "the one that was trained when empty.",
)
@option("predictions", default="", help="File of the candidate's predictions on the holdout; no model is loaded then.")
@option("champion-predictions", default="", help="File of the champion's predictions, instead of the registry's.")
def evaluate(model: str, predictions: str, champion_predictions: str) -> tuple[Any, dict[str, Any]]:
    """Judge the candidate on the holdout against its gates and against the champion."""
    from mlcicd.stages import evaluate as stage

    return stage, {"model": model, "predictions": predictions, "champion_predictions": champion_predictions}


@_stage_command(
    "register",
    outputs={
        "model-name": "Name of the registered model",
        "model-version": "Version in the registry",
        "alias": "Alias the version was given",
    },
)
def register() -> tuple[Any, dict[str, Any]]:
    """Register the evaluated model with its evidence; refuse one without."""
    from mlcicd.stages import register as stage

    return stage, {}


@_stage_command(
    "deploy",
    outputs={
        "model-version": "The version that was deployed",
        "environment": "The environment it was deployed to",
        "strategy": "direct: it has all the traffic; canary: it waits beside the live version",
        "url": "URL of the endpoint",
    },
    extras=("token",),
)
@option("environment", default="", help="Environment of deploy.environments; the last one when empty.")
@option("model-version", default="", help="Version to deploy; the one with register.alias when empty.")
@option(
    "approved-by",
    default="",
    help="Who approved it, where deploy.mode is delivery; on GitHub, the environment's reviewers are asked for.",
)
def deploy(environment: str, model_version: str, approved_by: str) -> tuple[Any, dict[str, Any]]:
    """Bring a registered version up beside the live one, smoke-test it, and switch or hand over to the canary."""
    from mlcicd.stages import deploy as stage

    return stage, {"environment": environment, "model_version": model_version, "approved_by": approved_by}


@_stage_command(
    "canary",
    outputs={
        "decision": "promote, rollback or inconclusive; continue or hold while it goes on; none without a canary",
        "continues": "true while scheduled steps have something to do, also after a promotion that is watched",
        "model-version": "The version that was judged",
        "champion-version": "The version that has the traffic now",
    },
    subcommands=True,
)
@option("environment", default="", help="Environment of deploy.environments; the last one when empty.")
@option(
    "mode",
    default="watch",
    show_default=True,
    type=click.Choice(CANARY_MODES),
    help="watch it to its end; start it and leave it running; take one step, as a scheduled job does; tell its status; "
    "or a person's word: promote, abort, pause.",
)
@option("watch-for", default="", help="With watch or start: watch for this long (15m), then leave it running.")
@option("reason", default="", help="Why, with promote and abort; recorded in the registry.")
def canary(environment: str, mode: str, reason: str, watch_for: str = "") -> tuple[Any, dict[str, Any]]:
    """Give the new version a growing share of the traffic, and promote it or take it back."""
    from mlcicd.stages import canary as stage

    return stage, {"environment": environment, "mode": mode, "watch_for": watch_for, "reason": reason}


# Further commands of the canary, such as those over recorded windows, are added to this group.
canary_group = cast(click.Group, canary)
_CANARY_COMMANDS = {
    "start": "Give the waiting version its first share, or go on with a paused one.",
    "step": "Judge what came since the last step, and move the weights: for scheduled jobs.",
    "status": "Show share, step and e-values; changes nothing.",
    "promote": "Promote the canary now, whatever the evidence.",
    "abort": "Take the canary back now.",
    "pause": "Keep the share as it is; harm still takes the canary back.",
}


def _canary_command(mode: str, summary: str) -> None:
    """`mlcicd canary MODE`: the same as `mlcicd canary --mode MODE`."""

    def callback(**options: Any) -> None:
        assert canary_group.callback is not None
        canary_group.callback(mode=mode, **options)

    own = [p for p in canary_group.params if p.name != "mode" and (p.name != "watch_for" or mode == "start")]
    canary_group.add_command(click.Command(mode, callback=callback, params=own, help=summary))


for _mode, _summary in _CANARY_COMMANDS.items():
    _canary_command(_mode, _summary)


@_stage_command(
    "monitor",
    outputs={
        "breached": "true when the rule under `monitor` is broken",
        "action": "retrain, report or none",
        "drifted-columns": "Names of the drifted columns, worst first, separated by commas",
    },
)
@option("data", default="", help="Data to compare with the champion's profile; data.current when empty.")
@flag("ignore-breach", help="End with exit code 0 on a breach; the outputs still tell of it.")
def monitor(data: str, ignore_breach: bool) -> tuple[Any, dict[str, Any]]:
    """Compare new data with the champion's reference profile, and say whether to retrain."""
    from mlcicd.stages import monitor as stage

    return stage, {"data": data, "ignore_breach": ignore_breach}


@_stage_command("rollback", outputs={"model-version": "The version that has the traffic now"})
@option("environment", default="", help="Environment of deploy.environments; the last one when empty.")
@option("reason", default="", help="Why; recorded in the registry.")
def rollback(environment: str, reason: str) -> tuple[Any, dict[str, Any]]:
    """Bring the previous version back: its traffic first, then the champion alias."""
    from mlcicd.stages import rollback as stage

    return stage, {"environment": environment, "reason": reason}


@_stage_command(
    "report", outputs={"comment-url": "URL of the pull-request comment, if one was written"}, extras=("token",)
)
@flag("comment", help="Write or update the one comment of the pull request.")
def report(comment: bool) -> tuple[Any, dict[str, Any]]:
    """Make one page of the verdicts so far: HTML, summary, and the pull request's comment."""
    from mlcicd.stages import report as stage

    return stage, {"comment": comment}


@_stage_command(
    "run",
    outputs={
        "failed-stage": "The stage at which the pipeline ended, if it did not pass",
        "run-id": "The MLflow run of the candidate",
        "model-version": "Version in the registry",
        "production": "Name of the last environment of deploy.environments",
        "github-environment": "GitHub environment for production by deploy.mode: with reviewers, or -unattended",
    },
)
@option(
    "stages",
    default="validate-data,train,evaluate",
    show_default=True,
    help=f"Stages to run, in order, separated by commas: {', '.join(STAGES)}; or `plan` for its outputs alone.",
)
@flag("refresh", help="First run data.refresh, which makes the newest data part of the training data.")
@option("approved-by", default="", help="Who approved it, where deploy.mode is delivery.")
def run(stages: str, refresh: bool, approved_by: str) -> tuple[Any, dict[str, Any]]:
    """Run several stages in order, as CI would; stop at the first that does not pass."""
    from mlcicd.stages import run as stage

    return stage, {
        "stages": [name.strip() for name in stages.split(",") if name.strip()],
        "refresh": refresh,
        "deploy": {"approved_by": approved_by},
    }


def main() -> None:
    """Entry point of `mlcicd` and `python -m mlcicd`."""
    import os
    import signal

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # MLflow would retry an unreachable server for minutes; a user's own setting stands.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    # What MLflow tells its own users (database created, bars of downloads) is noise among a stage's lines.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    cli(prog_name="mlcicd")


@cli.group("data")
def data_group() -> None:
    """Look at data and write its schema."""


# Registers the commands that are not stages; they are written with `cli` and `option` of above.
from mlcicd import commands as _commands  # noqa: E402, F401
from mlcicd import commands_canary as _commands_canary  # noqa: E402, F401
from mlcicd import commands_container as _commands_container  # noqa: E402, F401
from mlcicd import commands_data as _commands_data  # noqa: E402, F401
from mlcicd import commands_gates as _commands_gates  # noqa: E402, F401
from mlcicd import commands_kubernetes as _commands_kubernetes  # noqa: E402, F401
from mlcicd import commands_predict as _commands_predict  # noqa: E402, F401
from mlcicd import commands_registry as _commands_registry  # noqa: E402, F401
from mlcicd import commands_supply as _commands_supply  # noqa: E402, F401
from mlcicd import commands_train as _commands_train  # noqa: E402, F401
