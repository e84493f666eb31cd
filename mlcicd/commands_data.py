"""Commands over data sets beside `data infer`: what changed between two versions, and rules from other tools."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from mlcicd.cli import data_group
from mlcicd.commands_shared import NAMESPACE, plainly


@data_group.command("diff")
@click.argument("before")
@click.argument("now", required=False)
@click.option(
    "--rev", default="", help="Compare the one path with what it was at this git revision (git or DVC keep it)."
)
@click.option("--key", default="", help="Columns that identify a row, separated by commas; whole rows without.")
@click.option("--sensitive", default="", help="Columns whose values are not shown, separated by commas.")
@NAMESPACE
@click.option("--exit-code", "exit_code", is_flag=True, help="End with exit code 1 when there are differences.")
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plainly
def diff(
    before: str,
    now: str | None,
    rev: str,
    key: str,
    sensitive: str,
    namespace: str,
    exit_code: bool,
    markdown: bool,
    as_json: bool,
) -> None:
    """Compare two versions of a data set: columns, rows, values and distributions.

    \b
    mlcicd data diff old.parquet new.parquet --key id
    mlcicd data diff data/train.parquet --rev origin/main
    mlcicd data diff s3://lake/flights.parquet table:flights@FLIGHTS_DB
    """
    from mlcicd.core.errors import ConfigError
    from mlcicd.data.diff import diff as compare
    from mlcicd.report.data_diff import diff_lines, diff_markdown
    from mlcicd.stages.located import located, shown

    if (now is None) == (not rev):
        raise ConfigError("name two versions, or one path and --rev")
    with ExitStack() as stack:
        if now is None:
            names = [f"{before} at {rev}", before]
            before, now = str(_at_revision(stack, Path(before), rev)), before
        versions = [stack.enter_context(located(one, os.environ, namespace=namespace)) for one in (before, now)]
        if not rev:
            names = [shown(one, namespace=namespace) for one in (before, now)]
        found = compare(*versions, key=_names(key), sensitive=_names(sensitive))
        document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    if as_json:
        click.echo(json.dumps(document, indent=2))
    elif markdown:
        click.echo(diff_markdown(document, before=names[0], now=names[1]), nl=False)
    else:
        click.echo("\n".join(diff_lines(document, before=names[0], now=names[1])))
    if exit_code and found:
        raise SystemExit(1)


def _at_revision(stack: ExitStack, path: Path, revision: str) -> Path:
    from tempfile import TemporaryDirectory

    from mlcicd.data.revision import at_revision

    folder: Any = stack.enter_context(TemporaryDirectory(prefix="mlcicd-"))
    return at_revision(path, revision, Path(folder))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@data_group.command("suggest-drift")
@click.argument("data")
@click.option("--time", required=True, help="Column of each row's time.")
@click.option(
    "--every",
    default="month",
    show_default=True,
    type=click.Choice(["day", "week", "month", "quarter"]),
    help="Length of the periods that are compared.",
)
@click.option(
    "--metric",
    default="js",
    show_default=True,
    type=click.Choice(["js", "psi", "ks", "wasserstein"]),
    help="The distance that the bounds are of.",
)
@click.option("--ignore", default="", help="Columns to leave out, separated by commas.")
@NAMESPACE
@plainly
def suggest(data: str, time: str, every: Any, metric: Any, ignore: str, namespace: str) -> None:
    """Suggest bounds of drift from how far each column of a data set moved from one period to the next.

    DATA is a file, a remote file's address, or table:NAME@VARIABLE. Prints the `drift` section for data.checks in
    mlcicd.yaml.
    """
    from mlcicd.data.suggest_drift import suggest_drift, suggestion_yaml
    from mlcicd.stages.located import located

    with located(data, os.environ, namespace=namespace) as source:
        found = suggest_drift(source, time, every=every, metric=metric, ignore=_names(ignore))
        click.echo(suggestion_yaml(found, source, time, every, metric), nl=False)


@data_group.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "kind",
    default="",
    type=click.Choice(["", "great-expectations", "pandera", "tfdv", "dbt"]),
    help="Whose rules they are; found out from the file when it is not said.",
)
@click.option("--model", default="", help="Which model of a dbt file, when there are several.")
@click.option(
    "--table",
    "tables",
    multiple=True,
    metavar="NAME=FILE",
    help="The file of a model that dbt's relationships name, relative to the schema; may be given again.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write there instead of standard output.")
@plainly
def import_rules(path: Path, kind: str, model: str, tables: tuple[str, ...], output: Path | None) -> None:
    """Write a schema.yaml from rules of Great Expectations (JSON), Pandera (YAML), TFDV (pbtxt) or dbt (schema.yml).

    What has no counterpart stands in the comment at the top of it.
    """
    from mlcicd.core.errors import ConfigError
    from mlcicd.core.files import write_atomic
    from mlcicd.data.imports import import_schema

    if output is not None and output.exists():
        raise ConfigError("it is there already", where=str(output), remedy="remove it, or name another file")
    text = import_schema(path, kind=kind, model=model, tables=_files(tables))
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomic(output, text)
        click.echo(f"wrote {output}")


def _files(given: tuple[str, ...]) -> dict[str, str]:
    from mlcicd.core.errors import ConfigError

    for one in given:
        if not all(one.partition("=")):
            raise ConfigError(f"--table {one!r} names no file", remedy="write NAME=FILE")
    return dict((name, file) for name, _, file in (one.partition("=") for one in given))
