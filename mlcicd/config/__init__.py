"""The configuration: `mlcicd.yaml` as models, read with the line of every error."""

from mlcicd.config.base import seconds
from mlcicd.config.load import FILE_NAME, Project, load_project
from mlcicd.config.model import Config

__all__ = ["FILE_NAME", "Config", "Project", "load_project", "seconds"]
