"""From the configuration to where the canary's windows come from, and to who is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlcicd.config import Project, seconds
from mlcicd.core.errors import ConfigError
from mlcicd.rollout.notify import Notification, Webhook
from mlcicd.rollout.sources import Source, SourceContext, make_source


def source_of(
    project: Project,
    *,
    champion: str,
    canary: str,
    share_at: Callable[[float], float],
    counters: Callable[[], Mapping[str, Any]] | None = None,
) -> Source:
    """The source that `canary.source` names.

    Args:
        project: with its configuration and environment variables.
        champion, canary: the versions.
        share_at: the share (0 to 1) the canary was meant to get at a time (seconds since 1970).
        counters: those of the deployment target, for `router`.

    Raises:
        ConfigError: the source lacks something.
        ServiceError: the environment variable with its token is not set.
    """
    settings = project.config.canary
    own: dict[str, Any] = {}
    if settings.prometheus is not None:
        own = settings.prometheus.model_dump(exclude={"timeout", "settle", "fresh"})
        own["timeout_s"] = seconds(settings.prometheus.timeout)
        own["settle_s"] = seconds(settings.prometheus.settle)
        if settings.prometheus.fresh is not None:
            own["fresh_s"] = seconds(settings.prometheus.fresh)
    context = SourceContext(
        champion=champion,
        canary=canary,
        window_s=seconds(settings.window),
        share_at=share_at,
        counters=counters,
        windows=project.root / settings.windows if settings.windows else None,
        settings=own,
        environ=project.environ,
    )
    return make_source(settings.source, context)


def teller(project: Project) -> Callable[[Notification], str]:
    """A function that tells people, and returns why it could not (empty when it could, or nobody is to be told).

    It never raises: a secret that a job was not given is told of in the job's own lines, and the canary is judged.
    """
    settings = project.config.canary.webhook
    if settings is None:
        return lambda _notification: ""
    url = project.environ.get(settings.url_env, "")
    if not url:
        return _mute(f"nobody is told: the environment variable {settings.url_env} (canary.webhook.url_env) is not set")
    try:
        return Webhook(url, events=settings.events, timeout_s=seconds(settings.timeout)).tell
    except ConfigError as error:
        return _mute(f"nobody is told: {error.one_line()}")


def _mute(why: str) -> Callable[[Notification], str]:
    return lambda _notification: why
