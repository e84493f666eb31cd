"""`mlcicd predict` and `export`: what is done with a registered model beside the pipeline. Each leaves a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlcicd.cli import cli
from mlcicd.commands_shared import FOLDER, JSON, PROFILE


@cli.command("predict")
@FOLDER
@PROFILE
@click.option("--input", "input", required=True, help="Rows to score: Parquet (file, folder or glob), CSV or TSV.")
@click.option("--output", required=True, help="File to write: .parquet, .csv, .csv.gz or .tsv.")
@click.option("--model-version", default="", help="Version in the registry; the one with --alias when empty.")
@click.option("--alias", default="", help="Alias of the version; the champion's when empty.")
@click.option("--keys", default="", help="Columns of the input to repeat in the output, separated by commas.")
@click.option("--batch-rows", default=50_000, show_default=True, type=int, help="Rows in memory at once.")
@click.option("--engine", type=click.Choice(["local", "spark"]), default=None, help="By data.engine when not given.")
@click.option("--timeout", default="24h", show_default=True, help="How long it may take.")
@click.option("--dry-run", is_flag=True, help="Verify the model and the input, but score nothing.")
@JSON
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def predict(working_directory: Path, profile: str, dry_run: bool, as_json: bool, debug: bool, **options: Any) -> None:
    """Score rows with a registered model, the champion by default, into a file with their lineage."""
    from mlcicd.conduct import Invocation, conduct

    options["engine"] = options["engine"] or ""

    def chosen() -> tuple[Any, dict[str, Any]]:
        from mlcicd.stages.predict import predict as stage

        return stage, options

    conduct(chosen, Invocation("predict", working_directory, profile, dry_run=dry_run, as_json=as_json, debug=debug))


@cli.command("export")
@FOLDER
@PROFILE
@click.option("--output", required=True, help="File to write: NAME.onnx.")
@click.option(
    "--format", "format", default="onnx", show_default=True, type=click.Choice(["onnx"]), help="What to write."
)
@click.option("--quantize", is_flag=True, help="Weights as whole numbers of eight bits.")
@click.option("--model-version", default="", help="Version in the registry; the one with --alias when empty.")
@click.option("--alias", default="", help="Alias of the version; the champion's when empty.")
@click.option("--dry-run", is_flag=True, help="Convert and measure, but write nothing.")
@JSON
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def export(
    working_directory: Path, profile: str, dry_run: bool, as_json: bool, debug: bool, format: str, **options: Any
) -> None:
    """Write a registered model as ONNX, if it agrees with the original on the holdout and is small and fast enough."""
    from mlcicd.conduct import Invocation, conduct

    def chosen() -> tuple[Any, dict[str, Any]]:
        from mlcicd.stages.export import export as stage

        return stage, options

    conduct(chosen, Invocation("export", working_directory, profile, dry_run=dry_run, as_json=as_json, debug=debug))
