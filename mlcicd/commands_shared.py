"""What the commands that are not stages have in common: options, and how errors are told."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

FOLDER = click.option(
    "-C",
    "--working-directory",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the project, which holds mlcicd.yaml.",
)
PROFILE = click.option("--profile", default="", help="Profile of mlcicd.yaml whose values override the others.")
NAMESPACE = click.option("--namespace", default="", help="Schema of the tables (table:NAME@VARIABLE) in the database.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


def plainly(function: Callable[..., None]) -> Callable[..., None]:
    """Errors of the library as one line, the detail after it, and the exit code of the table."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        from mlcicd.core.errors import ExitCode, MlcicdError

        try:
            function(*args, **kwargs)
        except MlcicdError as error:
            click.echo(f"mlcicd: {error.one_line()}", err=True)
            if error.detail():
                click.echo(error.detail(), err=True)
            raise SystemExit(int(error.exit_code)) from None
        except OSError as error:
            click.echo(f"mlcicd: {error.filename or ''}: {error.strerror or error}", err=True)
            raise SystemExit(int(ExitCode.SERVICE)) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    return run
