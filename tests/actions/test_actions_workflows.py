"""The starter workflows, run to the end on the example under act."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps, loads
from pathlib import Path

import pytest
from support import git

from mlcicd.scaffold import scaffold

from .act import CHECKOUT, WorkflowRun, export, run_workflow

pytestmark = [pytest.mark.act, pytest.mark.slow, pytest.mark.alone]

PULL_REQUEST = {
    "action": "opened",
    "number": 7,
    "pull_request": {
        "number": 7,
        "head": {"ref": "change", "sha": "1" * 40, "repo": {"full_name": "team/flights"}},
        "base": {"ref": "main", "sha": "0" * 40},
    },
    "repository": {"full_name": "team/flights", "default_branch": "main"},
}


class Comments:
    """As much of GitHub's API as a comment needs, on loopback."""

    def __init__(self) -> None:
        self.bodies: dict[int, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self, status: int, value: object) -> None:
                body = dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _body(self) -> str:
                return str(loads(self.rfile.read(int(self.headers["content-length"])))["body"])

            def _comment(self, number: int) -> dict[str, object]:
                user = {"login": "github-actions[bot]", "type": "Bot"}
                return {"id": number, "body": outer.bodies[number], "user": user, "html_url": f"http://c/{number}"}

            def do_GET(self) -> None:
                if self.path == "/user":
                    self._answer(403, {"message": "Resource not accessible by integration"})
                else:
                    first = "page=" not in self.path or "page=1" in self.path.split("&")[-1]
                    self._answer(200, [self._comment(n) for n in outer.bodies] if first else [])

            def do_POST(self) -> None:
                number = len(outer.bodies) + 1
                outer.bodies[number] = self._body()
                self._answer(201, self._comment(number))

            def do_PATCH(self) -> None:
                number = int(self.path.rpartition("/")[2])
                outer.bodies[number] = self._body()
                self._answer(200, self._comment(number))

            def log_message(self, *_args: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


def change(path: Path, before: str, now: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, f"{before!r} in {path}"
    path.write_text(text.replace(before, now))


class Team:
    """A repository that uses mlcicd, its registry, and the machine its servers run on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "flights"
        ignored = shutil.ignore_patterns(
            "data", "model", ".mlcicd", "mlflow.db*", "mlartifacts", "cache", "tmp", "*.lock"
        )
        shutil.copytree(CHECKOUT / "examples" / "flight-delays", self.project, ignore=ignored)
        git(self.project, "init", "--quiet", "--initial-branch=main")
        git(self.project, "remote", "add", "origin", "https://github.com/team/flights.git")
        scaffold(self.project, force=False)
        # Scheduled steps take longer than a watch, and each replays the requests of one window: few long ones.
        for before, now in (("max_duration: 3m", "max_duration: 1h"), ("window: 1s", "window: 4s\n  min_windows: 1")):
            change(self.project / "mlcicd.yaml", before, now)
        self.commit("The project")
        self.ours = export(folder / "mlcicd")
        self.comments = Comments()
        self.state = folder / "state"
        self.bin = folder / "bin"
        self.bin.mkdir()
        gh = self.bin / "gh"
        gh.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/gh.log"\n')
        gh.chmod(gh.stat().st_mode | stat.S_IXUSR)

    def commit(self, message: str) -> None:
        git(self.project, "add", "--all")
        git(self.project, "commit", "--quiet", "--message", message)

    def patch(self, name: str) -> None:
        git(self.project, "apply", str(CHECKOUT / "examples" / "changes" / f"{name}.patch"))
        self.commit(name)

    def run(self, workflow: str, event: str, payload: dict[str, object] | None = None, **variables: str) -> WorkflowRun:
        done = run_workflow(
            self.project,
            workflow,
            event,
            ours=self.ours,
            folder=self.folder,
            payload=payload,
            variables={
                "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
                "MLCICD_REFRESH": "true",
                **variables,
            },
            environment={
                "GITHUB_API_URL": self.comments.url,
                "XDG_STATE_HOME": str(self.state),
                "FLIGHTS_DEPLOY_MODE": "deployment",
            },
            path=self.bin,
        )
        print(f"{workflow} on {event}: {'passed' if done.code == 0 else f'failed (act ended with {done.code})'}")
        return done

    def steps(self, most: int) -> WorkflowRun:
        """Scheduled steps of the canary, until one of them switches the schedule off."""
        for _ in range(most):
            done = self.run("mlcicd-canary.yml", "schedule")
            if done.job("Switch the schedule off") == "succeeded":
                return done
            assert done.code == 0, explain(done)
        raise AssertionError(f"no decision after {most} scheduled steps\n{explain(done)}")

    def asked_of_github(self) -> list[str]:
        """What `gh` was called with since the last time."""
        log = self.folder / "gh.log"
        lines = log.read_text().splitlines() if log.is_file() else []
        log.unlink(missing_ok=True)
        return lines

    def stop(self) -> None:
        """Takes down what the CD workflow left running, which is what it is for."""
        import os

        here = {"GITHUB_REPOSITORY": "team/flights", "GITHUB_WORKSPACE": str(self.project)}
        environment = {**os.environ, **here, "XDG_STATE_HOME": str(self.state)}
        subprocess.run([sys.executable, "-m", "mlcicd", "stop"], cwd=self.project, env=environment, check=True)
        self.comments.server.shutdown()
        self.comments.server.server_close()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    made = Team(tmp_path_factory.mktemp("team"))
    yield made
    made.stop()


def explain(done: WorkflowRun) -> str:
    return done.log[-6000:]


def deploying(version: str) -> dict[str, object]:
    """The event by which the retraining workflow asks for a version."""
    return {"action": "mlcicd-deploy", "client_payload": {"version": version}}


# The tests of this file are one story, in order: each begins where the last one ended.


def test_a_good_change_passes_its_pull_request(team: Team) -> None:
    done = team.run("mlcicd-ci.yml", "pull_request", PULL_REQUEST)
    assert done.code == 0, explain(done)
    assert len(team.comments.bodies) == 1
    assert "roc_auc" in team.comments.bodies[1]


def test_merging_it_deploys_the_first_champion(team: Team) -> None:
    done = team.run("mlcicd-cd.yml", "push")
    assert done.code == 0, explain(done)
    assert [done.job(name) for name in ("Train, evaluate, register", "Staging", "Production")] == ["succeeded"] * 3
    assert "version 1 is up and has the traffic of production" in done.log


def test_a_bad_change_fails_its_pull_request_with_the_reason(team: Team) -> None:
    team.patch("shuffled")
    done = team.run("mlcicd-ci.yml", "pull_request", PULL_REQUEST)
    git(team.project, "revert", "--no-edit", "HEAD")
    assert done.code == 1, explain(done)
    assert "::set-output:: exit-code=1" in done.log
    assert "exit status 1" in done.log
    assert len(team.comments.bodies) == 1, "a second comment, instead of the one that is kept up to date"
    comment = team.comments.bodies[1]
    assert "roc_auc" in comment
    assert "failed" in comment.lower()
    summaries = [line for line in done.log.splitlines() if "Summary -" in line]
    assert summaries
    assert "What to do" in done.log


def test_a_better_one_is_promoted_by_the_canary(team: Team) -> None:
    team.patch("better")
    done = team.run("mlcicd-cd.yml", "push")
    assert done.code == 0, explain(done)
    assert "version 2 promoted after" in done.log


def test_the_failure_of_production_alone_is_taken_back(team: Team) -> None:
    team.patch("no-imputer")
    done = team.run("mlcicd-cd.yml", "push")
    git(team.project, "revert", "--no-edit", "HEAD")
    assert done.code == 1, explain(done)
    assert (done.job("Staging"), done.job("Production")) == ("succeeded", "failed")
    assert "version 3 rolled back after" in done.log
    assert done.job("Go on by scheduled steps") == "did not run"


def test_the_same_failure_is_taken_back_by_scheduled_steps(team: Team) -> None:
    started = team.run("mlcicd-cd.yml", "repository_dispatch", deploying("3"), MLCICD_CANARY_WATCH="0s")
    assert started.code == 0, explain(started)
    assert started.job("Go on by scheduled steps") == "succeeded"
    ended = team.steps(most=10)
    assert ended.code == 1, explain(ended)
    assert "version 3 rolled back after" in ended.log
    assert team.asked_of_github() == ["workflow enable mlcicd-canary.yml", "workflow disable mlcicd-canary.yml"]


def test_a_drifted_month_retrains_and_goes_on_to_cd(team: Team) -> None:
    done = team.run("mlcicd-retrain.yml", "workflow_dispatch")
    assert done.code == 0, explain(done)
    assert [done.job(name) for name in ("Monitor", "Train, evaluate, register", "Go on to CD")] == ["succeeded"] * 3
    assert done.job("Open a pull request") == "did not run"
    assert team.asked_of_github() == [
        "api repos/team/flights/dispatches -f event_type=mlcicd-deploy -f client_payload[version]=4"
    ]
    assert "registered as flight-delays version 4" in done.log
    # Watched for a while, paused and started again by hand, and promoted by a scheduled step.
    cd = team.run("mlcicd-cd.yml", "repository_dispatch", deploying("4"), MLCICD_CANARY_WATCH="4s")
    assert cd.code == 0, explain(cd)
    assert "promoted" not in cd.log
    paused = team.run("mlcicd-canary.yml", "workflow_dispatch", {"inputs": {"mode": "pause", "reason": ""}})
    assert (paused.code, paused.job("Switch the schedule off")) == (0, "did not run"), explain(paused)
    again = team.run("mlcicd-canary.yml", "workflow_dispatch", {"inputs": {"mode": "start", "reason": ""}})
    assert again.code == 0, explain(again)
    ended = team.steps(most=20)
    assert ended.code == 0, explain(ended)
    assert "version 4 promoted after" in ended.log
    assert team.asked_of_github() == ["workflow enable mlcicd-canary.yml", "workflow disable mlcicd-canary.yml"]
    # One machine, one state: no run had to bring the champion up again.
    assert "bringing the champion" not in cd.log
    assert len([entry for entry in team.state.glob("mlcicd/*") if entry.is_dir()]) == 1
    assert "stage train" not in cd.log
