"""Metric sources: the router's own counters, Prometheus, a file of windows."""

from mlcicd.rollout.sources.base import SOURCES, Source, SourceContext, make_source

__all__ = ["SOURCES", "Source", "SourceContext", "make_source"]
