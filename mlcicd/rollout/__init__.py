"""Canary rollouts: windows of counts in, a decision out that stays valid however often one looks."""

from mlcicd.rollout.decision import Action, Decision, MetricEvidence
from mlcicd.rollout.judge import Judge
from mlcicd.rollout.spec import GuardSpec, JudgeSpec, MetricSpec
from mlcicd.rollout.windows import Arm, Histogram, Window, read_windows

__all__ = [
    "Action",
    "Arm",
    "Decision",
    "GuardSpec",
    "Histogram",
    "Judge",
    "JudgeSpec",
    "MetricEvidence",
    "MetricSpec",
    "Window",
    "read_windows",
]
