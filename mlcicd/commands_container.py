"""Commands around containers: what an image of a version is built from."""

from __future__ import annotations

from pathlib import Path

import click

from mlcicd.cli import cli
from mlcicd.commands_shared import FOLDER, plainly


@cli.group("container")
def container() -> None:
    """Take a registered version into a container of your own."""


@container.command("write")
@FOLDER
@click.option("--model-version", default="", help="Version in the registry; the one with register.alias when empty.")
@click.option(
    "-o", "--output", default="container", show_default=True, type=click.Path(path_type=Path), help="New folder."
)
@click.option("--base", default="", help="Base image with Python, best with @sha256:...; by the model when empty.")
@click.option(
    "--requirements", type=click.Path(path_type=Path), help="Lock file with hashes, instead of the model's own file."
)
@plainly
def write(working_directory: Path, model_version: str, output: Path, base: str, requirements: Path | None) -> None:
    """Write Dockerfile, compose file, router and model of a version whose evidence holds. Builds nothing."""
    from mlcicd.config import load_project
    from mlcicd.stages.container import container_context

    project = load_project(working_directory)
    made = container_context(project, output, model_version=model_version, base=base, requirements=requirements)
    click.echo(f"wrote {made.folder}: `docker build --tag {made.image} {made.folder}`, or podman")
    if not made.pinned:
        click.echo(f"The base image {made.base} is not pinned: give it with its digest as --base.")
    if not made.locked:
        click.echo("The requirements have no hashes: give a lock file as --requirements.")
