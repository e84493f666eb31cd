"""What a file is, by its bytes first and by its name second."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from mlcicd.supply_chain.pickles import Data

# Files that some loader gives to `pickle.load`, whatever stands in them.
PICKLE_NAMES = frozenset(
    (".pkl", ".pickle", ".joblib", ".p", ".pk", ".sav", ".pt", ".pth", ".ckpt", ".bin", ".dat", ".cloudpickle", ".dill")
)
CODE_NAMES = frozenset((".py", ".pyc", ".pyo", ".so", ".pyd", ".dll", ".dylib", ".sh", ".exe", ".jar", ".egg", ".whl"))
_TEXT_CHECKED = 1 << 16
_MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x5d\0\0", "lzma"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"PAR1", "parquet"),
    (b"CBM1", "catboost"),
    (b"{L\0\0", "xgboost"),
    (b"binf", "xgboost"),
    (b"\x7fELF", "code"),
    (b"MZ", "code"),
    (b"\xcf\xfa\xed\xfe", "code"),
    (b"#!", "code"),
)
_ZLIB_SECOND = (b"\x01", b"\x5e", b"\x9c", b"\xda")
_SAFETENSORS = re.compile(rb".{6}\0\0\{", re.DOTALL)


def sniff(data: Data, name: str) -> str:
    """The kind of a file: one of the containers, formats or `code`, `text`, `empty`, `pickle`, `unknown`."""
    head = bytes(data[:512])
    suffix = PurePosixPath(name).suffix.lower()
    if not head:
        return "empty"
    if suffix in CODE_NAMES:
        return "code"
    kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), "") or _by_shape(head, suffix)
    if kind:
        return kind
    if (head[:1] == b"\x80" and head[1:2] <= b"\x05") or suffix in PICKLE_NAMES:
        return "pickle"
    return "text" if _is_text(data) else "unknown"


def _by_shape(head: bytes, suffix: str) -> str:
    """Formats whose beginning is not one fixed text; empty for none of them."""
    if head[:1] == b"x" and head[1:2] in _ZLIB_SECOND:
        return "zlib"
    if head[257:262] == b"ustar":
        return "tar"
    if suffix == ".onnx" and head[:1] == b"\x08":
        return "onnx"
    return "safetensors" if suffix == ".safetensors" and _SAFETENSORS.match(head) else ""


def _is_text(data: Data) -> bool:
    """Whether its beginning and its end are UTF-8 text without control characters that no text has."""
    for part in (bytes(data[:_TEXT_CHECKED]), bytes(data[-_TEXT_CHECKED:])):
        if re.search(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]", part):
            return False
        # The ends of the parts may cut a character in two.
        try:
            part[:-3].lstrip(bytes(range(0x80, 0xC0))).decode("utf-8")
        except UnicodeDecodeError as error:
            if error.end < len(part) - 6:
                return False
    return True
