"""Numbers out of the engine as arrays, batch by batch, over Arrow's C stream interface: nothing has to be installed for
it, and nothing is copied.

The structures are those of https://arrow.apache.org/docs/format/CStreamInterface.html and CDataInterface.html.
"""

# ruff: noqa: S608  (identifiers go through `quote`; values never become SQL)
from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlcicd.data.source import Source, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Schema(ctypes.Structure):
    """Opaque here: the query says what comes."""


class _Array(ctypes.Structure):
    _fields_: ClassVar[Any]


class _Stream(ctypes.Structure):
    _fields_: ClassVar[Any]


_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.POINTER(_Array)),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))),
    ("private_data", ctypes.c_void_p),
]
_Stream._fields_ = [
    ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Schema))),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Array))),
    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(_Stream))),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Stream))),
    ("private_data", ctypes.c_void_p),
]
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def number_batches(source: Source, value: str) -> Iterator[NDArray[np.float64]]:
    """The values of an expression that are not NULL, in the order of the rows.

    Args:
        value: our SQL, a DOUBLE.

    Yields:
        Some hundred thousand values (float64, shape (n,)), NaN and infinities among them. The array is the engine's
        memory, and gone with the next batch.

    Raises:
        InputError: the data can not be read.
    """
    with reading(str(source.path)):
        # The capsule owns the stream, and releases it.
        capsule = source.connection.sql(f"SELECT {value} AS v FROM data").__arrow_c_stream__()
        stream = ctypes.cast(_pointer_of(capsule, b"arrow_array_stream"), ctypes.POINTER(_Stream))
        while True:
            rows = _Array()
            if stream.contents.get_next(stream, ctypes.byref(rows)):
                raise _engine_error((stream.contents.get_last_error(stream) or b"").decode(errors="replace"))
            if not rows.release:  # the end
                return
            try:
                yield _present(rows.children[0].contents)
            finally:
                rows.release(ctypes.byref(rows))


def _present(column: _Array) -> NDArray[np.float64]:
    """The values of a column of doubles, without those that are NULL."""
    start, end = int(column.offset), int(column.offset + column.length)
    if end == start:
        return np.empty(0)
    doubles = ctypes.cast(column.buffers[1], ctypes.POINTER(ctypes.c_double))
    values = np.ctypeslib.as_array(doubles, shape=(end,))[start:]
    if not column.null_count or not column.buffers[0]:
        return values
    bits = ctypes.cast(column.buffers[0], ctypes.POINTER(ctypes.c_uint8))
    valid = np.unpackbits(np.ctypeslib.as_array(bits, shape=((end + 7) // 8,)), count=end, bitorder="little")[start:]
    return values[valid.view(np.bool_)]


def _engine_error(text: str) -> Exception:
    """What the engine would have raised: through a stream it only says so."""
    import duckdb

    kind = duckdb.OutOfMemoryException if text.startswith("Out of Memory") else duckdb.IOException
    error: Exception = kind(text)
    return error
