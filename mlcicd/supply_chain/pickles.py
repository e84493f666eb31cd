"""A pickle read as what it is, a program: which globals it names, and what it does with them, without running it.

An abstract machine with the stack, marks and memo of Python's unpickler keeps the constants and forgets the rest. It
knows joblib's stream, in which the bytes of arrays stand between the opcodes. What it cannot follow is a problem, never
a pass: the list of names would not be whole.

Opcodes: Lib/pickletools.py of CPython; joblib's stream: joblib/numpy_pickle.py (`NumpyArrayWrapper.read_array`).
"""

from __future__ import annotations

import codecs
import mmap
import struct
from typing import Any

from mlcicd.supply_chain.pickle_state import PARTIAL, RESPONSE_KEYS, entry_problem, partial_problem, state_problem
from mlcicd.supply_chain.pickle_values import (
    ARRAY_WRAPPER,
    CONTAINERS,
    I32,
    IMPORTABLE,
    NOT_TEXT,
    NUMBERS,
    SIMPLE,
    SIZED,
    U16,
    U32,
    U64,
    UNKNOWN,
    Allowance,
    Listing,
    Made,
    Mapping,
    Name,
    Program,
    Unreadable,
    joblib_array,
    never_text,
    python_3_name,
)

Data = bytes | mmap.mmap

_MAX_NESTING = 20


def read_program(data: Data, start: int = 0, allowance: Allowance | None = None) -> Program:
    """Reads the pickle that starts at an offset. It never raises for what stands there.

    Args:
        allowance: shared by the pickles of one file.
    """
    program = Program()
    _Machine(data, start, program, allowance or Allowance()).read()
    for at, key, listing in program.watched:
        problem = entry_problem(key, listing)
        if problem:
            program.problems.append((at, problem))
    return program


class _Machine:
    def __init__(
        self,
        data: Data,
        start: int,
        program: Program,
        allowance: Allowance,
        *,
        nesting: int = 0,
        joblib: bool = True,
    ) -> None:
        self.data = data
        self.pos = start
        self.program = program
        self.allowance = allowance
        # Where the current frame ends: the unpickler has read so far, and who reads from its file goes on behind it.
        self.frame_end = start
        self.nesting = nesting
        # False: read as plain `pickle.load` would, for which the bytes of an array are opcodes like others.
        self.joblib = joblib
        self.protocol = 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def read(self) -> None:
        program = self.program
        try:
            self._run()
        except Unreadable as error:
            program.error = f"{error} (at byte {self.pos})"
        except (IndexError, struct.error):
            program.error = f"it ends, or its stack is empty, in the middle (at byte {self.pos})"
        except (ValueError, UnicodeDecodeError, OverflowError):
            program.error = f"a value can not be read (at byte {self.pos})"
        except RecursionError:
            program.error = "it is nested too deeply"
        program.end = self.pos

    # --- the loop, most frequent opcodes first

    def _run(self) -> None:  # noqa: PLR0912, PLR0915  (one branch an opcode: a table of functions takes twice the time)
        data, size = self.data, len(self.data)
        stack, memo = self.stack, self.memo
        pos = self.pos
        while True:
            if pos >= size:
                self.pos = pos
                raise Unreadable("it ends in the middle")
            self.pos = pos
            op = data[pos]
            pos += 1
            if op == 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
            elif op == 0x8C:  # SHORT_BINUNICODE
                length = data[pos]
                stack.append(self._text(pos + 1, length))
                pos += 1 + length
            elif op == 0x68:  # BINGET
                stack.append(self._got(data[pos]))
                pos += 1
            elif op == 0x4B:  # BININT1
                stack.append(data[pos])
                pos += 1
            elif op == 0x47:  # BINFLOAT
                stack.append(NOT_TEXT)
                pos += 8
            elif op == 0x71:  # BINPUT
                memo[data[pos]] = stack[-1]
                pos += 1
            elif op == 0x6A:  # LONG_BINGET
                stack.append(self._got(U32.unpack_from(data, pos)[0]))
                pos += 4
            elif op == 0x4A:  # BININT
                stack.append(I32.unpack_from(data, pos)[0])
                pos += 4
            elif op == 0x4D:  # BININT2
                stack.append(U16.unpack_from(data, pos)[0])
                pos += 2
            elif op == 0x58:  # BINUNICODE
                length = U32.unpack_from(data, pos)[0]
                stack.append(self._text(pos + 4, length))
                pos += 4 + length
            elif op == 0x28:  # MARK
                self.marks.append(stack)
                stack = self.stack = []
                run = NUMBERS.match(data, pos)
                if run is not None:
                    # MARK, numbers, APPENDS: the list below has grown, the stack is as before.
                    stack = self.stack = self.marks.pop()
                    self._extend(stack[-1], [])
                    pos = run.end()
            elif op in SIMPLE:
                stack.append(NOT_TEXT)
                pos += SIMPLE[op]
            elif op in SIZED:
                layout, kept = SIZED[op]
                length = layout.unpack_from(data, pos)[0]
                pos += layout.size
                if length < 0 or pos + length > size:
                    raise Unreadable("a length is beyond its end")
                stack.append(self._text(pos, length) if kept else NOT_TEXT)
                pos += length
            elif op == 0x2E:  # STOP
                _ = stack[-1]
                self.pos = pos
                self._frame_is_over("it stops")
                return
            else:
                self.pos = pos
                _HANDLERS.get(op, _Machine._invalid)(self)
                stack, pos = self.stack, self.pos
            if pos > size:
                raise Unreadable("it ends in the middle")

    def _text(self, start: int, length: int) -> Any:
        if start + length > len(self.data):
            raise Unreadable("it ends in the middle")
        # Names are short; a long text is none, and need not be copied.
        return bytes(self.data[start : start + length]).decode("utf-8", "surrogatepass") if length < 4096 else UNKNOWN

    def _got(self, index: int) -> Any:
        try:
            return self.memo[index]
        except KeyError:
            raise Unreadable("it takes a value from its memo that was never put there") from None

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.pos)
        if end < 0:
            raise Unreadable("it ends in the middle of a line")
        line = bytes(self.data[self.pos : end])
        self.pos = end + 1
        return line

    def _invalid(self) -> None:
        raise Unreadable(f"there is no opcode {self.data[self.pos - 1]:#04x}")

    def _to_mark(self) -> list[Any]:
        if not self.marks:
            raise Unreadable("it has no mark on its stack")
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def _problem(self, text: str) -> None:
        if len(self.program.problems) < 100:
            self.program.problems.append((self.pos, text))

    def _refuse_if(self, problem: str) -> None:
        if problem:
            self._problem(problem)

    def _frame_is_over(self, what: str) -> None:
        # As plain pickle reads random bytes of arrays, a frame is nothing to judge by.
        if self.joblib and self.pos < self.frame_end:
            self._problem(f"{what} within a frame: readers do not agree on where it goes on")

    # --- names and calls

    def _named(self, module: str, name: str) -> Name:
        if self.protocol < 3:
            module, name = python_3_name(module, name)
        found = Name(module, name)
        self.program.names.setdefault(found, self.pos)
        return found

    def _global(self) -> None:
        module, name = self._line().decode("utf-8"), self._line().decode("utf-8")
        self.stack.append(self._named(module, name))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if isinstance(name, str) and isinstance(module, str):
            self.stack.append(self._named(module, name))
            return
        if any(never_text(value) for value in (name, module)):
            raise Unreadable("a name is no text")
        self._problem("it names a global by a text that is computed while it loads")
        self.stack.append(UNKNOWN)

    def _inst(self) -> None:
        module, name = self._line().decode("ascii"), self._line().decode("ascii")
        what = self._named(module, name)
        arguments = tuple(self._to_mark())
        self.stack.append(self._call(what, arguments))

    def _obj(self) -> None:
        items = self._to_mark()
        self.stack.append(self._call(items[0], tuple(items[1:])))

    def _call(self, what: Any, arguments: Any, *, new: bool = False) -> Made:
        self.program.calls += 1
        if not isinstance(what, Name):
            self._problem("it calls something that is not a plain name")
        elif (what.module, what.name) == PARTIAL:
            self._refuse_if(partial_problem(arguments))
        return Made(what, arguments, new=new)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments, new=True)

    def _newobj_ex(self) -> None:
        self.stack.pop()
        self._newobj()

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        self.program.calls += 1
        if isinstance(target, Name):
            self._problem(f"it changes {target.module}.{target.name} itself, not an object of it")
        self._refuse_if(state_problem(target, state))
        if isinstance(target, Made):
            target.state = state
            if self.joblib and target.made_of == ARRAY_WRAPPER:
                self._skip_array(target)

    def _skip_array(self, wrapper: Made) -> None:
        """Passes the bytes of an array, which joblib reads from the stream when it has built the wrapper."""
        layout = joblib_array(wrapper)
        if layout is None:
            raise Unreadable("an array of joblib does not say its shape and type plainly")
        self._frame_is_over("an array begins")
        self._read_plainly()
        if layout.objects:
            self.pos = self._nested(self.pos)
            return
        if layout.aligned:
            self.pos += 1 + self.data[self.pos]
        self.pos += layout.size
        if self.pos > len(self.data):
            raise Unreadable("it ends in the middle of an array")

    def _nested(self, start: int) -> int:
        if self.nesting >= _MAX_NESTING:
            raise Unreadable("arrays of objects are nested too deeply")
        inner = _Machine(self.data, start, self.program, self.allowance, nesting=self.nesting + 1)
        inner.read()
        if self.program.error:
            raise Unreadable(f"an array of objects: {self.program.error}")
        return inner.pos

    def _read_plainly(self) -> None:
        """Reads on as `pickle.load` would, which knows no arrays: their bytes must not be a program of their own."""
        first = self.data[self.pos] if self.pos < len(self.data) else 0
        if first not in _KNOWN:
            return
        if self.allowance.left < 0:
            raise Unreadable("it has more arrays than can be looked at")
        other = _Machine(self.data, self.pos, Program(), self.allowance, nesting=self.nesting, joblib=False)
        other.protocol = self.protocol
        other.stack = list(self.stack)
        other.marks = [list(items) for items in self.marks]
        other.memo = dict(self.memo)
        other.read()
        kept = len(other.stack) + len(other.memo) + sum(len(items) for items in other.marks)
        self.allowance.left -= other.pos - self.pos + kept // 4
        for name, at in other.program.names.items():
            # What cannot be imported stops the unpickler; random bytes do that, a program does not.
            if IMPORTABLE.fullmatch(name.module):
                self.program.names.setdefault(name, at)
        self.program.problems += other.program.problems
        self.program.watched += other.program.watched

    # --- everything else

    def _extension(self) -> None:
        raise Unreadable("it takes an object from copyreg's extension registry, which says nothing of what it is")

    def _proto(self) -> None:
        self.protocol = self.data[self.pos]
        self.pos += 1
        if self.protocol > 5:
            raise Unreadable(f"protocol {self.protocol} is not known")

    def _pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._to_mark()

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill(self.stack[-1], [key, value])

    def _setitems(self) -> None:
        self._fill(self.stack_below(), self._to_mark())

    def _fill(self, target: Any, items: list[Any]) -> None:
        if not isinstance(target, Mapping):
            self._container(target)
        for key, value in zip(items[::2], items[1::2], strict=False):
            if isinstance(value, Listing) and isinstance(key, str) and key in RESPONSE_KEYS:
                self.program.watched.append((self.pos, key, value))
            else:
                self._refuse_if(entry_problem(key, value))
            if isinstance(target, Mapping):
                target.put(key, value)

    def _extend(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, Listing):
            target.extend(values)
        elif target is not NOT_TEXT:
            self._container(target)

    def _container(self, target: Any) -> None:
        if not (isinstance(target, Listing) or (isinstance(target, Made) and target.made_of in CONTAINERS)):
            self._problem("it fills something that is no plain container, which calls a method of it")

    def _append(self) -> None:
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def stack_below(self) -> Any:
        if not self.marks or not self.marks[-1]:
            raise Unreadable("its stack is empty")
        return self.marks[-1][-1]

    def _dict(self) -> None:
        made = Mapping()
        self._fill(made, self._to_mark())
        self.stack.append(made)

    def _into_below(self) -> None:
        target = self.stack_below()
        self._extend(target, self._to_mark())

    def _list(self) -> None:
        made = Listing()
        made.extend(self._to_mark())
        self.stack.append(made)

    def _string(self) -> None:
        line = self._line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise Unreadable("a text has no quotes")
        self.stack.append(codecs.escape_decode(line[1:-1])[0].decode("ascii"))

    def _int(self) -> None:
        line = self._line()
        self.stack.append(NOT_TEXT if line in (b"00", b"01") else int(line, 0))

    def _persistent(self, *, line: bool) -> None:
        if line:
            self._line()
        else:
            self.stack.pop()
        self.program.persistent = True
        self.stack.append(UNKNOWN)

    def _tuple_of(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :]) if len(self.stack) >= count else ()
        if len(items) != count:
            raise Unreadable("its stack is empty")
        if count:
            del self.stack[-count:]
        self.stack.append(items)

    def _tuple(self) -> None:
        items = tuple(self._to_mark())
        self.stack.append(items)

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]


def _long_binput(self: _Machine) -> None:
    self._put(U32.unpack_from(self.data, self.pos)[0])
    self.pos += 4


def _frame(self: _Machine) -> None:
    self._frame_is_over("a frame begins")
    self.frame_end = self.pos + 8 + U64.unpack_from(self.data, self.pos)[0]
    self.pos += 8


def _out_of_band(self: _Machine) -> None:
    raise Unreadable("it needs buffers from outside of itself")


_HANDLERS: dict[int, Any] = {
    ord("c"): _Machine._global,
    0x93: _Machine._stack_global,
    ord("i"): _Machine._inst,
    ord("o"): _Machine._obj,
    ord("R"): _Machine._reduce,
    0x81: _Machine._newobj,
    0x92: _Machine._newobj_ex,
    ord("b"): _Machine._build,
    0x82: _Machine._extension,
    0x83: _Machine._extension,
    0x84: _Machine._extension,
    0x80: _Machine._proto,
    ord("0"): _Machine._pop,
    ord("1"): lambda m: m._to_mark() and None,
    ord("2"): lambda m: m.stack.append(m.stack[-1]),
    ord("s"): _Machine._setitem,
    ord("u"): _Machine._setitems,
    ord("d"): _Machine._dict,
    ord("}"): lambda m: m.stack.append(Mapping()),
    ord("a"): _Machine._append,
    ord("]"): lambda m: m.stack.append(Listing()),
    ord("e"): _Machine._into_below,
    0x90: _Machine._into_below,  # ADDITEMS
    ord("l"): _Machine._list,
    0x91: lambda m: (m._to_mark(), m.stack.append(NOT_TEXT)),  # FROZENSET
    ord("t"): _Machine._tuple,
    ord(")"): lambda m: m._tuple_of(0),
    0x85: lambda m: m._tuple_of(1),
    0x86: lambda m: m._tuple_of(2),
    0x87: lambda m: m._tuple_of(3),
    ord("S"): _Machine._string,
    ord("V"): lambda m: m.stack.append(m._line().decode("raw-unicode-escape")),
    ord("I"): _Machine._int,
    ord("L"): lambda m: (int(m._line().rstrip(b"lL"), 0), m.stack.append(NOT_TEXT)),
    ord("F"): lambda m: (float(m._line()), m.stack.append(NOT_TEXT)),
    ord("p"): lambda m: m._put(int(m._line())),
    ord("g"): lambda m: m.stack.append(m._got(int(m._line()))),
    ord("r"): _long_binput,
    ord("P"): lambda m: m._persistent(line=True),
    ord("Q"): lambda m: m._persistent(line=False),
    0x95: _frame,
    0x97: _out_of_band,
    0x98: _out_of_band,
}
# Every opcode that there is.
_KNOWN = frozenset(
    [*_HANDLERS, *SIMPLE, *SIZED, 0x94, 0x8C, 0x68, 0x4B, 0x47, 0x71, 0x6A, 0x4A, 0x4D, 0x58, 0x28, 0x2E]
)
