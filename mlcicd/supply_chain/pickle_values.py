"""What the abstract machine of `pickles` keeps on its stack, and how long its opcodes are."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

# A value that may be anything, a text too.
UNKNOWN: Any = type("Unknown", (), {"__repr__": lambda _: "UNKNOWN"})()
# A value that is known not to be a text: a number, bytes, a list.
NOT_TEXT: Any = type("NotText", (), {"__repr__": lambda _: "NOT_TEXT"})()

ARRAY_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_RECONSTRUCTORS = {("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor")}
_DTYPE = ("numpy", "dtype")
_ARRAYS = {_DTYPE, ("numpy._core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "_reconstruct")}
_DTYPE_CODE = re.compile(r"[<>=|]?([a-zA-Z?])(\d*)")
# Classes whose objects may be filled by SETITEM, APPEND and ADDITEMS; on others that would be a call of a method.
CONTAINERS = frozenset(
    (
        ("builtins", "dict"), ("builtins", "list"), ("builtins", "set"), ("collections", "Counter"),
        ("collections", "OrderedDict"), ("collections", "defaultdict"), ("collections", "deque"),
        ("sklearn.utils", "Bunch"), ("sklearn.utils._bunch", "Bunch"),
        ("sklearn.utils.deprecation", "_DictWithDeprecatedKeys"),
    )
)  # fmt: skip
_HAS_OBJECT = 1
_FLEXIBLE = "SUV"
_MAX_KEPT = 64


@dataclass(frozen=True, slots=True)
class Name:
    """A global that the pickle names: the unpickler would import `module` and take `name` from it."""

    module: str
    name: str


@dataclass(slots=True)
class Made:
    """An object that a call would have made: of which global, with which arguments and state.

    `new`: made by the class's `__new__`, as most objects are.
    """

    what: Any
    arguments: Any = UNKNOWN
    state: Any = None
    new: bool = False

    @property
    def made_of(self) -> tuple[str, str] | None:
        """Module and name of its class, where the pickle says it plainly."""
        what = self.what
        if isinstance(what, Name) and (what.module, what.name) in _RECONSTRUCTORS:
            what = self.arguments[0] if isinstance(self.arguments, tuple) and self.arguments else None
        return (what.module, what.name) if isinstance(what, Name) else None

    @property
    def never_text(self) -> bool:
        """Whether it can not be a plain text, so that the unpickler would not take it for a name."""
        made_of = self.made_of
        return made_of is not None and (made_of in _ARRAYS or (self.new and made_of != ("builtins", "str")))


@dataclass(slots=True)
class Mapping:
    """A dictionary of the pickle; only the first few entries whose key is a text are kept."""

    items: dict[str, Any] = field(default_factory=dict)
    # Whether a key may be a text that is not known here.
    odd: bool = False

    def put(self, key: Any, value: Any) -> None:
        if isinstance(key, str) and (len(self.items) < _MAX_KEPT or key in self.items):
            self.items[key] = value
        elif key is UNKNOWN or (isinstance(key, Made) and not key.never_text):
            self.odd = True


@dataclass(slots=True)
class Listing:
    """A list of the pickle, its first few items; `cut`: there are more. Numbers in a row are left out."""

    items: list[Any] = field(default_factory=list)
    cut: bool = False

    def extend(self, values: list[Any]) -> None:
        room = _MAX_KEPT - len(self.items)
        self.items += values[:room]
        self.cut = self.cut or len(values) > room


@dataclass(frozen=True, slots=True)
class ArrayBytes:
    """Raw bytes of an array that joblib writes into the stream: `size` bytes, or one pickle of its objects."""

    size: int
    objects: bool
    aligned: bool


class Unreadable(Exception):
    """The unpickler would stop here; everything before this place would have run."""


@dataclass
class Allowance:
    """How much may be read a second time, in bytes and entries: without it, n arrays would cost n times the rest."""

    left: int = 32 << 20


@dataclass
class Program:
    """What a pickle names and does. `end` is the offset behind it; `error` says why it can not be read to its end."""

    names: dict[Name, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    calls: int = 0
    end: int = 0
    error: str = ""
    persistent: bool = False
    # Lists that name methods, with the key: what is appended later counts, too.
    watched: list[tuple[int, str, Listing]] = field(default_factory=list)


def never_text(value: Any) -> bool:
    if isinstance(value, Made):
        return value.never_text
    return value is NOT_TEXT or isinstance(value, int | tuple | Listing | Mapping | Name)


def joblib_array(wrapper: Made) -> ArrayBytes | None:
    """What follows a `NumpyArrayWrapper` in the stream; None when the pickle does not say it plainly."""
    state = wrapper.state
    if not isinstance(state, Mapping):
        return None
    shape, dtype = state.items.get("shape"), state.items.get("dtype")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        return None
    layout = _itemsize(dtype)
    if layout is None:
        return None
    itemsize, objects = layout
    count = 1
    for n in shape:
        count *= n
    aligned = type(state.items.get("numpy_array_alignment_bytes")) is int
    return ArrayBytes(count * itemsize, objects, aligned)


def _itemsize(dtype: Any) -> tuple[int, bool] | None:
    """Bytes of one item of a pickled dtype, and whether it holds Python objects."""
    if not isinstance(dtype, Made) or dtype.made_of != _DTYPE or not isinstance(dtype.arguments, tuple):
        return None
    code = dtype.arguments[0] if dtype.arguments else None
    match = _DTYPE_CODE.fullmatch(code) if isinstance(code, str) else None
    if match is None:
        return None
    kind, digits = match.groups()
    if kind == "O":
        return 0, True
    state = dtype.state if isinstance(dtype.state, tuple) else ()
    flags = state[7] if len(state) > 7 and type(state[7]) is int else 0
    if kind in _FLEXIBLE:
        size = state[5] if len(state) > 5 else None
        return (size, bool(flags & _HAS_OBJECT)) if type(size) is int and size >= 0 else None
    if kind not in "biufcMm" or not digits:
        return None
    return int(digits), False


def python_3_name(module: str, name: str) -> tuple[str, str]:
    """The name that Python 3 imports for one of Python 2, as protocols below 3 are read."""
    import _compat_pickle as compat

    if (module, name) in compat.NAME_MAPPING:
        return compat.NAME_MAPPING[(module, name)]
    return compat.IMPORT_MAPPING.get(module, module), name


U16, U32, I32, U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i"), struct.Struct("<Q")
# Plain numbers in a list, the most frequent opcodes of a large one: skipped at the speed of a regular expression.
NUMBERS = re.compile(rb"(?:G.{8}|K.|M..|J.{4}|[N\x88\x89]){8,}+e", re.DOTALL)
IMPORTABLE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
# Opcodes that push something that is no text, and the bytes behind them.
SIMPLE = {0x4E: 0, 0x88: 0, 0x89: 0, 0x8F: 0}
# Opcodes with a length before their bytes, and whether those may be a name.
SIZED = {
    0x42: (U32, False),  # BINBYTES
    0x43: (struct.Struct("<B"), False),  # SHORT_BINBYTES
    0x8E: (U64, False),  # BINBYTES8
    0x96: (U64, False),  # BYTEARRAY8
    0x8D: (U64, True),  # BINUNICODE8
    0x54: (I32, True),  # BINSTRING
    0x55: (struct.Struct("<B"), True),  # SHORT_BINSTRING
    0x8A: (struct.Struct("<B"), False),  # LONG1
    0x8B: (I32, False),  # LONG4
}
