"""Verdicts, made readable: Markdown for summaries and comments, an HTML page, figures, lines for a terminal.

Everything here reads :class:`~mlcicd.core.verdict.Verdict` documents and knows no stage by its name.
"""

from __future__ import annotations

from mlcicd.report.html import report_html
from mlcicd.report.markdown import comment_markdown, summary_markdown
from mlcicd.report.plain import print_verdict, terminal_lines
from mlcicd.report.svg import figure_svg

__all__ = [
    "comment_markdown",
    "figure_svg",
    "print_verdict",
    "report_html",
    "summary_markdown",
    "terminal_lines",
]
