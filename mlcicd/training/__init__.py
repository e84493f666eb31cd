"""Training: the user's own command, and knowing when it need not run again."""

from mlcicd.training.command import TrainingRun, run_training
from mlcicd.training.fingerprint import Fingerprint, fingerprint

__all__ = ["Fingerprint", "TrainingRun", "fingerprint", "run_training"]
