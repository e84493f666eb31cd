"""An artifact repository: the files of a version and their evidence, put there once and proven when they are read."""

from mlcicd.artifacts.manifest import MANIFEST, Manifest, manifest_of, read_manifest
from mlcicd.artifacts.repository import Stored, fetch, put, verify
from mlcicd.artifacts.stores import Store, open_store

__all__ = [
    "MANIFEST",
    "Manifest",
    "Store",
    "Stored",
    "fetch",
    "manifest_of",
    "open_store",
    "put",
    "read_manifest",
    "verify",
]
