"""Remote files (`s3://`, `gs://`, `https://`, and what else fsspec knows), fetched once and read from here.

The engine has no way to the network, by design. So the bytes are copied in blocks, never held in memory, and what is
checked, trained on and digested afterwards is the same file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mlcicd.core.digests import digest_json
from mlcicd.core.errors import InputError, ServiceError

_BLOCK = 1 << 20
_GLOB = frozenset("*?[")
# By these an unchanged file is told from a changed one; names differ between stores.
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "VersionId", "version_id", "mtime", "created")


def fetch(address: str, target: Path, *, shown: str, known: str = "") -> str:
    """Brings a remote file, or all Parquet files of a remote folder or glob (into the folder `target`).

    Nothing is fetched when the store says by ETag, digest, version or time that it is what `known` stands for.

    Args:
        address: with the scheme; credentials are the environment's, as fsspec's file systems read them.
        target: a file, or a folder; what was there is replaced when all has come.
        shown: the address as it may be shown.
        known: what the last call for this target returned.

    Returns:
        A digest of what the store says about the files' versions; empty when it says nothing to rely on.

    Raises:
        InputError: nothing is there, no Parquet file is in the folder, or a file system's package is missing.
        ServiceError: the store can not be reached, or refuses.
    """
    with _asking(shown):
        import fsspec

        system, path = fsspec.core.url_to_fs(address)
        many = address.endswith("/") or bool(_GLOB.intersection(address.partition("?")[0]))
        files = _listed(system, path, shown) if many else {path: system.info(path)}
        version = _version(files)
        if version and version == known and target.exists():
            return version
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            made = Path(folder, "data")
            if many:
                root = PurePosixPath(os.path.commonpath([str(PurePosixPath(file).parent) for file in files]))
                for file in files:
                    _copy(system, file, made / PurePosixPath(file).relative_to(root))
            else:
                _copy(system, path, made)
            _put(made, target)
    return version


def _listed(system: Any, path: str, shown: str) -> dict[str, Mapping[str, Any]]:
    found = system.glob(path, detail=True) if _GLOB.intersection(path) else system.find(path, detail=True)
    files = {
        name: info
        for name, info in sorted(found.items())
        if info.get("type", "file") == "file" and name.lower().endswith((".parquet", ".pq"))
    }
    if not files:
        raise InputError(
            "no Parquet files are there", where=shown, remedy="check the address; several files are Parquet"
        )
    return files


def _version(files: Mapping[str, Mapping[str, Any]]) -> str:
    told = []
    for name, info in files.items():
        versions = {key: str(info[key]) for key in _VERSIONS if info.get(key) is not None}
        if not versions:
            return ""
        told.append([name, str(info.get("size")), versions])
    return digest_json(told)


def _copy(system: Any, path: str, target: Path) -> None:
    if ".." in target.parts:  # a store's names are data
        raise InputError("a file's name leads out of its folder", where=path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with system.open(path, "rb") as source, target.open("wb") as out:
        shutil.copyfileobj(source, out, _BLOCK)


def _put(made: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    elif made.is_dir():
        target.unlink(missing_ok=True)
    made.replace(target)


@contextmanager
def _asking(shown: str) -> Iterator[None]:
    """Turns what fsspec and its file systems raise into errors a user can act on."""
    try:
        yield
    except (InputError, ServiceError):
        raise
    except ImportError as error:
        # fsspec names the package that reads this scheme.
        raise InputError(
            "reading it needs a package that is not installed",
            where=shown,
            why=str(error).splitlines()[0],
            remedy="pip install 'mlcicd[remote]'; for s3:// also s3fs, for gs:// gcsfs, for abfs:// adlfs",
        ) from None
    except FileNotFoundError:
        raise InputError(
            "nothing is there, or it is hidden from these credentials", where=shown, remedy="check the address"
        ) from None
    except ValueError as error:
        raise InputError("fsspec does not know such an address", where=shown, why=_without(str(error))) from None
    except Exception as error:
        # Each store's client has errors of its own, without a base in common; none is passed over.
        raise ServiceError(
            "the store can not be reached, or refuses",
            where=shown,
            why=_without(f"{type(error).__name__}: {error}"),
            remedy="check the network, and the credentials in the environment (AWS_*, GOOGLE_APPLICATION_CREDENTIALS)",
        ) from None


def _without(text: str) -> str:
    """The first line, without what follows a question mark: signatures of addresses are there."""
    return (text.splitlines() or [""])[0].partition("?")[0][:300]
