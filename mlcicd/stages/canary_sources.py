"""From the configuration to where the canary's windows come from, and to who is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlcicd.config import FILE_NAME, Project, seconds
from mlcicd.core.errors import ConfigError
from mlcicd.rollout.labels import Cohort, read_cohorts
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


def router_counts_them(project: Project) -> None:
    """Refuses metrics that a router can not count.

    Raises:
        ConfigError: one is configured with `source: router`; the error names its line.
    """
    settings = project.config.canary
    if settings.source != "router":
        return
    for at, metric in enumerate(settings.metrics):
        early = metric.rate_names if metric.label_delay_s == 0 else ()
        uncounted = ("scores",) if metric.name == "scores" else early
        if uncounted:
            raise ConfigError(
                f"the router does not count {', '.join(uncounted)}",
                file=FILE_NAME,
                line=project.document.line(("canary", "metrics", at)),
                why="It counts requests, errors and latencies of each version.",
                remedy="take the windows from `source: prometheus` or `source: file`; outcomes that come later are "
                "given with `label_delay` and `canary.labels`",
            )
    for at, guard in enumerate(settings.guards):
        if guard.metric not in ("errors", "latency"):
            raise ConfigError(
                f"the router does not count {guard.metric}",
                file=FILE_NAME,
                line=project.document.line(("canary", "guards", at)),
                remedy="take the windows from `source: prometheus` or `source: file`",
            )


def target_counts_them(project: Project, target: object) -> None:
    """Refuses `source: router` where the target does not count the requests itself.

    Raises:
        ConfigError: it does not; the error names the line.
    """
    if project.config.canary.source == "router" and not getattr(target, "counts_requests", True):
        raise ConfigError(
            "this deployment target does not count requests: canary.source can not be `router`",
            file=FILE_NAME,
            line=project.document.line(("canary",)),
            remedy="set `canary.source: prometheus`, and tell where it is",
        )


def cohorts_of(project: Project) -> Callable[[], Sequence[Cohort]]:
    """A function that reads the outcomes that are known by now; without any late metric it gives none.

    Raises:
        ConfigError: a metric has a `label_delay`, and no file of outcomes is named.
    """
    settings = project.config.canary
    late = [at for at, metric in enumerate(settings.metrics) if metric.label_delay_s > 0]
    if not late:
        return lambda: ()
    named = settings.labels or (settings.windows if settings.source == "file" else "")
    if not named:
        raise ConfigError(
            f"the outcomes of {settings.metrics[late[0]].name!r} come late, and from nowhere",
            file=FILE_NAME,
            line=project.document.line(("canary", "metrics", late[0])),
            remedy="name their file (JSON lines) as canary.labels",
        )
    path, window_s = project.root / named, seconds(settings.window)
    return lambda: read_cohorts(path, window_s, growing=True) if path.exists() else ()


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
