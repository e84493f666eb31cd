"""Commands of the canary that run for long: its judge behind HTTP."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mlcicd.cli import canary_group
from mlcicd.commands_shared import FOLDER, PROFILE, plainly


@canary_group.command("serve")
@FOLDER
@PROFILE
@click.option("--environment", default="", help="Environment of deploy.environments; the last one when empty.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--token-env", default="", help="Environment variable with the bearer token that questions must carry.")
@plainly
def canary_serve(working_directory: Path, profile: str, environment: str, host: str, port: int, token_env: str) -> None:
    """Answer Argo Rollouts' and Flagger's questions about a canary with the judge's decision, over HTTP."""
    from mlcicd.config import load_project
    from mlcicd.core.errors import ConfigError, redact
    from mlcicd.stages.canary_asked import Answers
    from mlcicd.stages.canary_serve import Endpoint, make_server

    project = load_project(working_directory, profile=profile)
    token = project.environ.get(token_env, "") if token_env else ""
    if token_env and not token:
        raise ConfigError(f"the environment variable {token_env} is not set", where="--token-env")

    def say(line: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%SZ', time.gmtime())} {redact(line)}")

    answers = Answers(project, environment, say)
    server = make_server(Endpoint(answers, token=token, say=say), host, port)
    say(f"answers about {answers.environment} on http://{host}:{server.server_port}")
    if not token and host not in ("127.0.0.1", "::1", "localhost"):
        say("whoever reaches this port may ask: let a network policy say who does, or set --token-env")
    try:
        server.serve_forever(0.2)
    except KeyboardInterrupt:
        # Ctrl-C, or the SIGTERM of a pod that is to end: what was asked is written down already.
        say("stopped")
    finally:
        server.server_close()
