"""What a CI host is: where outputs, summaries, annotations and comments go. GitHub, GitLab, a terminal."""

from __future__ import annotations

from mlcicd.ci.host import Annotation, CIHost, CommentResult, Level, detect_host

__all__ = ["Annotation", "CIHost", "CommentResult", "Level", "detect_host"]
