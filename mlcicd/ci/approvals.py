"""Who approved a deployment: the reviewers of the GitHub environment that the job waited for."""

from __future__ import annotations

from collections.abc import Mapping

from mlcicd.ci.github_api import GitHubClient


def approvers(environ: Mapping[str, str], environment: str) -> list[str]:
    """Logins of those who approved this workflow run for an environment; empty outside of GitHub, or when nobody did.

    Who pushed the commit is not asked: that a job runs in an environment proves nothing when that environment has no
    required reviewers.

    Raises:
        ServiceError: GitHub refused; the token needs `actions: read`.
        ConfigError: the step has no token.
    """
    run = environ.get("GITHUB_RUN_ID", "")
    if environ.get("GITHUB_ACTIONS") != "true" or not run.isdigit():
        return []
    return GitHubClient.from_environ(environ).approvals(int(run), environment)
