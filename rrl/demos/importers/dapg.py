"""The DAPG authors' pickles (aravindr93/hand_dapg): a list of dicts of numpy arrays.

A pickle is a program that can call anything, so it is never unpickled. `_Reader` goes through its opcodes and
knows those that lists, dicts, strings, numbers and numpy's arrays are made of; anything else is refused, and
nothing in the file is imported, called or handed to numpy but checked bytes, types and shapes.
"""

from __future__ import annotations

import math
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.demos.importers.base import Recorded, array, matrix
from rrl.registry import UserError

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
ARGUMENT = set(
    re.findall(
        r"\w+",
        "INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
        "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8",
    )
)
"""Opcodes that stand for their argument."""
NAMES = {
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",  # bytes in protocol 2
    "__builtin__ bytes": "bytes",  # empty bytes in protocol 2
    "builtins bytes": "bytes",
    **{f"numpy.{core}.multiarray _reconstruct": "reconstruct" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": "frombuffer" for core in ("core", "_core")},
}
"""What numpy's pickles name, and what stands for it here."""


class Refused(Exception):
    """A pickle that holds more than demonstrations do, or less than a pickle."""


class _Name(str):
    """One of the values of `NAMES`: never to be taken for text."""


class _Dtype:
    """The type of an array's numbers, by its name."""

    def __init__(self, name: Any) -> None:
        name = name.decode("latin1") if type(name) is bytes else name
        if type(name) is not str or not re.fullmatch(r"[<>=|]?([iu][1248]|f[248]|b1)", name):
            raise Refused("an array holds something else than numbers")
        self.name = name.lstrip("<>=|")
        self.order = name[: -len(self.name)]

    def fill(self, state: Any) -> None:
        """BUILD: the byte order is the second part of numpy's state."""
        order = state[1] if type(state) is tuple and len(state) > 1 else None
        order = order.decode("latin1") if type(order) is bytes else order
        if type(order) is not str or order not in ("<", ">", "=", "|"):
            raise Refused("an array has no byte order")
        self.order = order


class _Array:
    """An array on its way: `reconstruct` makes it, BUILD fills it."""

    def __init__(self, value: NDArray[Any] | None = None) -> None:
        self.value = value


class _Reader:
    """The stack, marks and memo of a pickle, without its powers."""

    def __init__(self, program: bytes) -> None:
        self.program = program
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.left = 64 * len(program) + 1_000_000
        """Bytes of arrays that may still be made: a file may refer to its own bytes again and again."""

    def load(self) -> Any:
        """What the pickle holds, arrays as `_Array`; Refused if that is more than data."""
        for opcode, argument, _ in pickletools.genops(self.program):
            name = opcode.name
            if name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in ARGUMENT:
                self.stack.append(argument)
            elif name == "STOP":
                return self.pop()
            elif name not in ("PROTO", "FRAME"):
                step = getattr(self, f"do_{name.lower()}", None)
                if step is None:
                    raise Refused(f"it uses {name}, which no demonstration needs")
                step(argument)
        raise Refused("it has no end")

    def pop(self) -> Any:
        """The top of the stack, not reaching below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Refused("it takes more from its stack than there is")
        return self.stack.pop()

    def to_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        if not self.marks:
            raise Refused("it misses a mark")
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def top(self, kind: type) -> Any:
        """The top of the stack, left there, if it is of this kind."""
        value = self.pop()
        if type(value) is not kind:
            raise Refused(f"a {kind.__name__} is missing")
        self.stack.append(value)
        return value

    # --- lists, tuples, dicts ---

    def do_mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def do_pop(self, _: Any) -> None:
        self.pop()

    def do_pop_mark(self, _: Any) -> None:
        self.to_mark()

    def do_empty_list(self, _: Any) -> None:
        self.stack.append([])

    def do_empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def do_empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def do_list(self, _: Any) -> None:
        self.stack.append(self.to_mark())

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.to_mark()))

    def do_tuple1(self, _: Any) -> None:
        self.stack.append((self.pop(),))

    def do_tuple2(self, _: Any) -> None:
        second, first = self.pop(), self.pop()
        self.stack.append((first, second))

    def do_tuple3(self, _: Any) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.stack.append((first, second, third))

    def do_append(self, _: Any) -> None:
        value = self.pop()
        self.top(list).append(value)

    def do_appends(self, _: Any) -> None:
        items = self.to_mark()
        self.top(list).extend(items)

    def do_dict(self, _: Any) -> None:
        items = self.to_mark()
        self.stack.append({})
        self.set_items(items)

    def do_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def do_setitems(self, _: Any) -> None:
        self.set_items(self.to_mark())

    def set_items(self, items: list[Any]) -> None:
        """Keys and values in turn, into the dict on top."""
        into = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise Refused("a dict has keys that are not words")
            into[key] = value

    # --- the memo ---

    def do_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1] if self.stack else None

    do_binput = do_long_binput = do_put

    def do_memoize(self, _: Any) -> None:
        self.do_put(len(self.memo))

    def do_get(self, index: int) -> None:
        value = self.memo.get(index)
        parts = value if type(value) is tuple else (value,)
        if value is None or any(type(part) in (list, dict, tuple) for part in parts):
            # Lists in lists in lists, each twice the one before: small to write, endless to read.
            raise Refused("it refers twice to the same list or dict")
        if type(value) is _Array:
            if value.value is None:
                raise Refused("it refers to an array before that is filled")
            self.spend(8 * value.value.size)  # as float64, once more
        self.stack.append(value)

    do_binget = do_long_binget = do_get

    # --- names and calls ---

    def do_global(self, name: str) -> None:
        if name not in NAMES:
            raise Refused(f"it asks for {name.replace(' ', '.')}, which no demonstration needs")
        self.stack.append(_Name(NAMES[name]))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise Refused("it asks for something without a name")
        self.do_global(f"{module} {name}")

    def do_reduce(self, _: Any) -> None:
        arguments, name = self.pop(), self.pop()
        if type(name) is not _Name or type(arguments) is not tuple:
            raise Refused("it calls something that is no function of numpy's")
        self.stack.append(getattr(self, f"make_{name}", self.make_nothing)(*arguments))

    def do_build(self, _: Any) -> None:
        state, target = self.pop(), self.pop()
        if type(target) is _Dtype:
            target.fill(state)
        elif type(target) is _Array and target.value is None and type(state) is tuple and len(state) == 5:
            _, shape, dtype, fortran, data = state
            target.value = self.numbers(data, dtype, shape, "F" if fortran is True else "C")
        else:
            raise Refused("an array in no form that numpy writes")
        self.stack.append(target)

    def make_nothing(self, *_: Any) -> None:
        raise Refused("it calls something that is no function")

    def make_dtype(self, name: Any = None, *_: Any) -> _Dtype:
        return _Dtype(name)

    def make_reconstruct(self, *_: Any) -> _Array:
        return _Array()

    def make_bytes(self, *arguments: Any) -> bytes:
        if arguments:
            raise Refused("it makes bytes of something")
        return b""

    def make_encode(self, text: Any = None, encoding: Any = None) -> bytes:
        if type(text) is not str or encoding != "latin1":
            raise Refused("bytes in an encoding other than latin1")
        self.spend(len(text))
        return text.encode("latin1")

    def make_scalar(self, dtype: Any = None, data: Any = b"") -> Any:
        return self.numbers(data, dtype, (), "C").item()

    def make_frombuffer(
        self, data: Any = None, dtype: Any = None, shape: Any = None, order: Any = None, axes: Any = None
    ) -> _Array:
        if type(order) is not str or order not in ("C", "F", "K"):
            raise Refused("an array in no form that numpy writes")
        value = self.numbers(data, dtype, shape, order)
        if order == "K" and axes is not None:
            known = type(axes) is tuple and all(type(axis) is int for axis in axes)
            if not known or sorted(axes) != list(range(value.ndim)):
                raise Refused("an array with axes that it does not have")
            value = value.transpose(axes)
        return _Array(value)

    def spend(self, size: int) -> None:
        """Count bytes that are made."""
        self.left -= size
        if self.left < 0:
            raise Refused("its arrays are larger than the file")

    def numbers(self, data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
        """The array of that shape in these bytes; Refused if they don't fit each other."""
        data = data.encode("latin1") if type(data) is str else data  # a Python 2 pickle
        if type(data) not in (bytes, bytearray) or type(dtype) is not _Dtype or type(shape) is not tuple:
            raise Refused("an array without bytes, type or shape")
        if len(shape) > 8 or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
            raise Refused("an array with an impossible shape")
        kind = np.dtype(dtype.order + dtype.name)
        if math.prod(shape) * kind.itemsize != len(data):
            raise Refused("an array whose bytes don't fit its shape")
        self.spend(len(data))
        return np.frombuffer(data, kind).reshape(shape, order="F" if order == "F" else "C").copy()


def read_dapg(source: str) -> list[Recorded]:
    """The episodes of a DAPG pickle; UserError if it is none, or holds anything but arrays."""
    try:
        data = _Reader(Path(source).read_bytes()).load()
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(
            f"{source} is refused: {error}. Only pickles of lists, dicts and numpy arrays are read"
        ) from error
    if not isinstance(data, list) or not all(isinstance(episode, dict) for episode in data):
        raise UserError(f"{source} is not a list of episodes (dicts), as hand_dapg's pickles are")
    return [_episode(f"{source}, episode {i}", episode) for i, episode in enumerate(data)]


def _plain(value: Any) -> Any:
    """An array, or a list of arrays or numbers; anything else as None."""
    if isinstance(value, list):
        return [_plain(item) for item in value] if all(type(item) is not list for item in value) else None
    return value.value if type(value) is _Array else value


def _episode(where: str, data: dict[str, Any]) -> Recorded:
    initial = data.get("init_state_dict")
    if "actions" not in data or not isinstance(initial, dict):
        names = ", ".join(data)
        raise UserError(f"{where}: needs actions and init_state_dict; it has {names or 'nothing'}")
    return Recorded(
        actions=array(_plain(data["actions"]), f"{where}: actions", 2),
        initial={name: _plain(value) for name, value in initial.items()},
        observations=matrix(_plain(data.get("observations")), f"{where}: observations"),
    )
