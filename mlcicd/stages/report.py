"""report: one page of the verdicts so far, and the one comment of the pull request."""

from __future__ import annotations

from pathlib import Path

from mlcicd.ci import detect_host
from mlcicd.config import Project
from mlcicd.core.errors import InputError
from mlcicd.core.files import write_atomic
from mlcicd.core.verdict import Check, CheckStatus, Severity, Status, Verdict, now
from mlcicd.report import comment_markdown, report_html, summary_markdown
from mlcicd.stages.record import Record, stage


def verdicts_so_far(project: Project) -> list[Verdict]:
    """The verdicts that stand, in the order in which their stages ran; the report's own is not one of them."""
    folder = project.state / "verdicts"
    found = [Verdict.read(path) for path in sorted(folder.glob("*.json")) if path.stem not in ("report", "run")]
    return sorted(found, key=lambda verdict: verdict.started)


def write_report(project: Project) -> Path | None:
    """Writes `.mlcicd/report.html` and `.mlcicd/report.md`; None when there is nothing to report yet."""
    verdicts = verdicts_so_far(project)
    if not verdicts:
        return None
    page = project.state / "report.html"
    write_atomic(page, report_html(verdicts, title=project.config.model.name, generated=now()))
    write_atomic(project.state / "report.md", summary_markdown(verdicts))
    return page


@stage("report")
def report(record: Record, *, comment: bool = False) -> Status | None:
    """Makes the report of the verdicts so far.

    Args:
        comment: write or update the pull request's comment, where there is a pull request.
    """
    page = write_report(record.project)
    if page is None:
        raise InputError(
            "there is nothing to report: no stage has left a verdict",
            where=".mlcicd/verdicts",
            remedy="run a stage first; in another job, download the folder .mlcicd that it uploaded",
        )
    record.attach(page, "report")
    verdicts = verdicts_so_far(record.project)
    record.summary = f"{len(verdicts)} verdict{'s' * (len(verdicts) != 1)} on one page: .mlcicd/{page.name}"
    if comment and not record.dry_run:
        result = detect_host(record.project.environ).comment(comment_markdown(verdicts))
        record.outputs["comment-url"] = result.url
        record.checks.append(
            Check(
                name="pull-request comment",
                status=CheckStatus.PASSED if result.posted else CheckStatus.FAILED,
                observed=result.url or None,
                severity=Severity.WARN,
                reason=result.reason,
            )
        )
    return Status.PASSED
