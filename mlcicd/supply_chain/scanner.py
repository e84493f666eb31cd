"""The allow-list scanner: every global that a model may name is listed, every format is known, and the rest is refused.

It opens containers within bounds, reads pickles as programs, and never imports, unpickles or runs anything of a model.
"""

from __future__ import annotations

import ast
import mmap
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from mlcicd.core.errors import InputError
from mlcicd.supply_chain.containers import Budget, Hostile, inflate, tar_members, zip_members, zip_names
from mlcicd.supply_chain.documents import check_keras, check_skops
from mlcicd.supply_chain.findings import Scan, rule
from mlcicd.supply_chain.formats import PICKLE_NAMES, sniff
from mlcicd.supply_chain.mlmodel import check_environment, check_mlmodel, check_name, check_requirements
from mlcicd.supply_chain.pickle_values import IMPORTABLE, Allowance, Program
from mlcicd.supply_chain.pickles import Data, read_program
from mlcicd.supply_chain.policy import FORMATS, Rules

_DEPTH = 8
_TORCH_MAGIC = 5
# Documents of a model's folder, which are read as such whatever their first bytes look like.
_MAX_DOCUMENT = 1 << 20
_DOCUMENT = re.compile(r"(requirements|constraints).*\.txt|conda\.ya?ml|python_env\.ya?ml|MLmodel")
_PLAIN_TYPE = re.compile(r"[|<>=]?[?bBhHiIlLqQuefdgFDGSUVmMca]\d*(\[\w+\])?")
_KERAS_IN_HDF5 = re.compile(rb"model_config|Lambda|layer_config")
_RAW = r"(data/\d+|\.data/.*|version|byteorder|\.format_version|\.storage_alignment)"
_COMPRESSED = ("gzip", "zlib", "bz2", "xz", "lzma")
_FORMAT = {
    "zip": "archive",
    "tar": "archive",
    "npy": "numpy",
    "empty": "text",
    **dict.fromkeys(_COMPRESSED, "compressed"),
}


def scan_model(path: Path, rules: Rules | None = None) -> Scan:
    """Scans a model's folder, or one file.

    Raises:
        InputError: nothing is there, or a file can not be read.
    """
    walk = _Walk(rules or Rules())
    if path.is_symlink() or not path.exists():
        raise InputError("there is no model here", where=str(path))
    try:
        if path.is_dir():
            walk.folder(path)
        else:
            walk.file(path, path.name, named=True)
    except OSError as error:
        raise InputError(f"can not read it ({error.strerror})", where=str(error.filename or path)) from error
    return walk.scan


class _Walk:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.scan = Scan(note=rules.note)
        self.budget = Budget()

    def folder(self, root: Path) -> None:
        pickled: set[str] = set()
        manifest = root / "MLmodel"
        if manifest.is_file() and not manifest.is_symlink():
            with manifest.open("rb") as file:
                content = file.read(_MAX_DOCUMENT + 1)
            if not self._too_large(content, "MLmodel"):
                pickled = check_mlmodel(_decoded(content), "MLmodel", self.rules, self.scan)
        for path, relative in _files(root, self.scan):
            check_name(relative, self.scan)
            self.file(path, relative, named=any(_below(relative, name) for name in pickled))

    def file(self, path: Path, relative: str, *, named: bool) -> None:
        size = path.stat().st_size
        self.scan.files += 1
        self.scan.size += size
        if not size:
            return
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            self.look(data, relative, named=named)

    def look(self, data: Data, where: str, *, named: bool = False, depth: int = 0) -> None:
        """Looks at one file or member. `named`: the model says that it is to be unpickled."""
        if depth > _DEPTH:
            self.scan.refuse(where, f"containers are nested more than {_DEPTH} deep")
            return
        if self.rules.excepts(where, data):
            self.scan.formats.add("excepted by the policy")
            self.scan.unread.append(where)
            return
        name = PurePosixPath(where.rpartition("!")[2]).name
        kind = "text" if _is_document(name) else sniff(data, where)
        if kind == "text" and named and not _is_document(name) and _maybe_pickle(data):
            kind = "pickle"
        try:
            if kind == "pickle":
                self._pickles(data, where)
            elif kind == "npy":
                self._npy(data, where)
            elif kind == "zip":
                self._zip(data, where, depth)
            elif kind == "tar":
                self._accept("archive", where, data)
                for name, member in tar_members(data, self.budget):
                    self.look(member, f"{where}!{name}", depth=depth + 1)
            elif kind in _COMPRESSED:
                self._accept("compressed", where, data)
                self.look(inflate(data, kind, self.budget), _unpacked_name(where), named=named, depth=depth + 1)
            else:
                self._plain(kind, data, where)
            if kind != "pickle":
                self._also_pickle(data, where, kind, named=named or _pickle_name(name))
        except Hostile as error:
            self.scan.refuse(where, str(error))

    def _accept(self, kind: str, where: str, data: Data) -> bool:
        """Whether the policy takes a format; a finding when it does not."""
        kind = _FORMAT.get(kind, kind)
        if self.rules.takes(kind):
            self.scan.formats.add(kind)
            return True
        listed = "it is not in `formats` of the policy" if kind in FORMATS else _WHY.get(kind, _UNKNOWN)
        self.scan.refuse(where, f"{_A_FORMAT.get(kind, kind)}: {listed}", allow=rule("files", path=where))
        return False

    # --- plain files

    def _plain(self, kind: str, data: Data, where: str) -> None:
        name = PurePosixPath(where.rpartition("!")[2]).name
        if kind == "text":
            self._text(data, where, name)
        elif kind == "hdf5" and (where.endswith("model.weights.h5") or not _KERAS_IN_HDF5.search(data)):
            self._accept("keras", where, data)
        elif kind == "onnx" and re.search(rb"\.\./|\.\.\\", data):
            self.scan.refuse(where, "it names external data outside of the model's folder")
        else:
            self._accept(kind, where, data)

    def _too_large(self, data: Data, where: str) -> bool:
        """A finding for a document of which others would read more than is looked at here."""
        if len(data) <= _MAX_DOCUMENT:
            return False
        self.scan.refuse(where, f"it is larger than {_MAX_DOCUMENT:,} bytes, which is more than such a file needs")
        return True

    def _text(self, data: Data, where: str, name: str) -> None:
        if not self._accept("text", where, data):
            return
        if _is_document(name) and self._too_large(data, where):
            return
        if re.fullmatch(r"(requirements|constraints).*\.txt", name):
            check_requirements(_decoded(data), where, self.scan)
        elif re.fullmatch(r"(conda|python_env)\.ya?ml", name):
            check_environment(_decoded(data), where, self.scan)
        elif name == "MLmodel" and where != "MLmodel":
            check_mlmodel(_decoded(data), where, self.rules, self.scan)
        elif name == "schema.json":
            check_skops(bytes(data), where, self.rules, self.scan)
        elif name.endswith(".json") and data.find(b"class_name") >= 0:
            check_keras(bytes(data), where, self.scan)

    def _npy(self, data: Data, where: str) -> None:
        if not self._accept("numpy", where, data):
            return
        header, start = _npy_header(data)
        if _has_objects(header.get("descr")):
            if not (isinstance(header["descr"], str) and re.fullmatch(r"[|<>=]?O\d*", header["descr"])):
                self.scan.refuse(where, f"its type {str(header['descr'])[:80]!r} has objects among its fields")
            self._pickles(data, where, start=start)

    # --- archives

    def _zip(self, data: Data, where: str, depth: int) -> None:
        names = zip_names(data)
        torch = next((name.rpartition("/")[0] for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)), "")
        kind = "torch" if torch else "skops" if "schema.json" in names else "archive"
        if where.endswith(".keras") and "config.json" in names:
            kind = "keras"
        if not self._accept(kind, where, data):
            return
        if torch and any(name.startswith(f"{torch}/code/") for name in names):
            self._accept("torchscript", where, data)
            return
        raw = re.compile(rf"{re.escape(torch)}/{_RAW}") if torch else None

        def plain(name: str, head: bytes) -> bool:
            # Raw numbers of tensors, which torch reads as such whatever they look like; arrays without objects.
            return bool(raw and raw.fullmatch(name)) or _plain_array(head)

        for name, member in zip_members(data, self.budget, plain):
            inside = f"{where}!{name}"
            if torch and name == f"{torch}/data.pkl":
                self._pickles(member, inside, torch=True)
            elif kind == "keras" and name in ("config.json", "metadata.json"):
                check_keras(bytes(member), inside, self.scan)
            else:
                self.look(member, inside, depth=depth + 1)

    # --- pickles

    def _pickles(self, data: Data, where: str, *, start: int = 0, torch: bool = False) -> None:
        """A file that is unpickled: all of it must be pickles that can be read to their ends."""
        if not self._accept("torch" if torch else "pickle", where, data):
            return
        size, count, allowance = len(data), 0, Allowance()
        while start < size and count < 10_000:
            program = read_program(data, start, allowance)
            self._judge(program, where)
            if program.error:
                said = f"it can not be read to its end: {program.error}"
                self.scan.refuse(where, said, allow=rule("files", path=where))
                return
            if program.persistent and not torch:
                self.scan.refuse(where, "it takes objects from outside of itself (persistent ids)")
                return
            start, count = program.end, count + 1
        if count >= 10_000:
            self.scan.refuse(where, "it has more than 10,000 pickles")

    def _judge(self, program: Program, where: str) -> None:
        own = [n for n in program.names if n.module.partition(".")[0] in _CODE_PICKLERS]
        if own and not all(self.rules.names(n.module, n.name) for n in own):
            # One finding, not one for each of the many names that pickled code needs.
            self.scan.names.update(f"{n.module}:{n.name}" for n in program.names)
            others = sorted({n.module for n in program.names if not self.rules.names(n.module, n.name)} - _PICKLERS_OWN)
            also = f"; it also names {', '.join(others)}" if others else ""
            said = f"it holds code of its own, pickled by {own[0].module}{also}"
            self.scan.refuse(where, said, name=f"{own[0].module}:{own[0].name}", allow=rule("files", path=where))
            return
        for name, at in program.names.items():
            shown = f"{name.module}:{name.name}"
            self.scan.names.add(shown)
            if not self.rules.names(name.module, name.name):
                self.scan.refuse(
                    where,
                    f"it names {shown}, which nobody has reviewed (byte {at})",
                    name=shown,
                    allow=rule("globals", name=shown) if IMPORTABLE.fullmatch(name.module) else "",
                )
        for at, problem in program.problems:
            self.scan.refuse(where, f"{problem} (byte {at})")

    def _also_pickle(self, data: Data, where: str, kind: str, *, named: bool) -> None:
        """Whether something that is no pickle by its look would do anything if it was unpickled all the same.

        Names are imported before anything goes wrong further on, so an error excuses none; but two lines of a plain
        list of words may look like one name.
        """
        program = read_program(data)
        names = [name for name in program.names if IMPORTABLE.fullmatch(name.module)]
        words = kind == "text" and not named and len(names) == 1 and program.error and not program.problems
        if names and (program.calls or not words):
            self.scan.refuse(where, "it is also a pickle that names something")
            if named:
                # What its loader would do, by the rules for pickles.
                self._judge(program, where)


_CODE_PICKLERS = frozenset(("cloudpickle", "dill"))
_PICKLERS_OWN = frozenset(("cloudpickle", "cloudpickle.cloudpickle", "cloudpickle.cloudpickle_fast", "dill._dill"))
_UNKNOWN = "what is in it can not be judged"
_A_FORMAT = {
    "code": "a program",
    "unknown": "an unknown binary format",
    "hdf5": "an HDF5 file with a Keras model",
    "torchscript": "a TorchScript program",
}
_WHY = {
    "code": "it could run when the model is loaded",
    "hdf5": "its layers can hold code; save the model as .keras",
    "torchscript": "it is code, which torch runs when the model predicts",
    "lz4": "it can not be opened here; compress it with zlib, gzip, bz2 or xz",
    "zstd": "it can not be opened here; compress it with zlib, gzip, bz2 or xz",
}


def _files(root: Path, scan: Scan) -> Iterable[tuple[Path, str]]:
    """All regular files below a folder, in order; links and devices are findings."""
    for folder, folders, files in os.walk(root, followlinks=False):
        folders.sort()
        for name in sorted([*files, *folders]):
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if path.is_symlink():
                scan.refuse(relative, "a symbolic link: what it names is not part of the model")
            elif path.is_file():
                yield path, relative
            elif not path.is_dir():
                scan.refuse(relative, "a device, a pipe or a socket")


def _below(relative: str, name: str) -> bool:
    name = name.strip("/")
    return relative == name or relative.startswith(f"{name}/")


def _maybe_pickle(data: Data) -> bool:
    """Whether a text that is to be unpickled looks as if it could be: JSON and LightGBM's trees do not."""
    head = bytes(data[:64]).lstrip()
    return not head.startswith((b"{", b"[", b"tree\n", b"<")) or read_program(data).calls > 0


def _pickle_name(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PICKLE_NAMES


def _is_document(name: str) -> bool:
    return _DOCUMENT.fullmatch(name) is not None


def _unpacked_name(where: str) -> str:
    """The name of a compressed file's content: a pickle, where the outer name says nothing else."""
    path = PurePosixPath(where)
    inner = path.with_suffix("") if path.suffix.lower() in (".gz", ".bz2", ".xz", ".lzma", ".z") else path
    return inner.as_posix() if inner.suffix else f"{inner.as_posix()}"


def _decoded(data: Data) -> str:
    return bytes(data[: 8 << 20]).decode("utf-8", "replace")


def _npy_header(data: Data) -> tuple[dict[str, Any], int]:
    major = data[6]
    width = 2 if major == 1 else 4
    length = int.from_bytes(bytes(data[8 : 8 + width]), "little")
    start = 8 + width + length
    if major not in (1, 2, 3) or length > 1 << 20 or start > len(data):
        raise Hostile("its header is damaged")
    try:
        header = ast.literal_eval(bytes(data[8 + width : start]).decode("latin-1"))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise Hostile("its header is damaged") from error
    if not isinstance(header, dict):
        raise Hostile("its header is damaged")
    return header, start


def _plain_array(head: bytes) -> bool:
    """Whether these are the first bytes of a NumPy array of numbers."""
    if not head.startswith(b"\x93NUMPY"):
        return False
    try:
        return not _has_objects(_npy_header(head)[0].get("descr"))
    except Hostile:
        return False


def _has_objects(descr: Any) -> bool:
    """Whether a type may hold Python objects; a comma or an O anywhere in a type's text is enough to think so."""
    if isinstance(descr, str):
        return _PLAIN_TYPE.fullmatch(descr) is None
    if isinstance(descr, list):
        # The fields of a structure: name, type, perhaps a shape.
        return not all(isinstance(f, tuple) and len(f) in (2, 3) and not _has_objects(f[1]) for f in descr)
    return True


__all__ = ["PICKLE_NAMES", "scan_model"]
