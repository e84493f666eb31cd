"""Training: the user's own command or a named estimator, and knowing when it need not run again."""

from mlcicd.training.command import Job, TrainingRun, run_training
from mlcicd.training.fingerprint import DataNotHere, Fingerprint, fingerprint

__all__ = ["DataNotHere", "Fingerprint", "Job", "TrainingRun", "fingerprint", "run_training"]
