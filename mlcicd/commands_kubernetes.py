"""Commands around clusters: manifests for controllers that move the traffic themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlcicd.cli import cli
from mlcicd.commands_shared import FOLDER, PROFILE, plainly


@cli.group("kubernetes")
def kubernetes() -> None:
    """Take a registered version into a cluster whose traffic another controller moves."""


@kubernetes.command("write")
@FOLDER
@PROFILE
@click.option(
    "--controller", required=True, type=click.Choice(["argo-rollouts", "flagger"]), help="Who moves the weights."
)
@click.option("--environment", default="", help="One with the target kubernetes; the last one when empty.")
@click.option("--model-version", default="", help="Version in the registry; the one with register.alias when empty.")
@click.option("--attempt", default="1", show_default=True, help="Another one tests the same version once more.")
@click.option("--judge-image", default="", help="Image with mlcicd, and the project in /project: writes its objects.")
@click.option("--judge-url", default="", help="Where `mlcicd canary serve` runs, if not in a Deployment of ours.")
@click.option("--judge-env-secret", default="", help="Secret with the judge's environment variables.")
@click.option("--token-secret", default="", help="Secret whose key `token` Argo's questions carry.")
@click.option("--controller-namespace", default="", help="Where the controller runs, if not where it is by default.")
@click.option(
    "-o", "--output", default="k8s", show_default=True, type=click.Path(path_type=Path), help="Folder of the files."
)
@plainly
def write(working_directory: Path, profile: str, controller: Any, output: Path, **options: str) -> None:
    """Write Rollout or Canary, the judge's questions and the rest of a version that may go there. Applies nothing."""
    from mlcicd.config import load_project
    from mlcicd.stages.kubernetes_handover import hand_over
    from mlcicd.targets.kubernetes.controllers import Judgement

    project = load_project(working_directory, profile=profile)
    asked = Judgement(
        champion="",
        attempt=options["attempt"],
        percents=(),
        interval_s=0.0,
        max_duration_s=0.0,
        patience_s=0.0,
        url=options["judge_url"],
        image=options["judge_image"],
        token_secret=options["token_secret"],
        environment_secret=options["judge_env_secret"],
        asked_from=options["controller_namespace"],
    )
    made = hand_over(
        project,
        controller,
        output,
        environment=options["environment"],
        model_version=options["model_version"],
        asked=asked,
    )
    against = f"to be compared with version {made.champion}" if made.champion else "the first one: nothing is compared"
    click.echo(f"wrote {len(made.files)} files into {output}: version {made.version}, {against}")
    if made.forgetful:
        click.echo("The judge's pod forgets its evidence when it ends: set `canary.state: registry`.")


@kubernetes.command("withdrawn")
@FOLDER
@PROFILE
@click.option("--environment", default="", help="One with the target kubernetes; the last one when empty.")
@click.option("--model-version", required=True, help="The promoted version that was taken back.")
@click.option("--reason", default="taken back by hand", show_default=True, help="Recorded in the registry.")
@plainly
def tell_withdrawn(working_directory: Path, profile: str, environment: str, model_version: str, reason: str) -> None:
    """Tell the registry that the controller went back to the version before. Moves no traffic."""
    from mlcicd.config import load_project
    from mlcicd.stages.kubernetes_handover import withdrawn

    project = load_project(working_directory, profile=profile)
    told = withdrawn(project, environment=environment, model_version=model_version, reason=reason)
    click.echo(f"the champion is version {told.champion or 'none'}")
    for warning in told.warnings:
        click.echo(f"warning: {warning}", err=True)
