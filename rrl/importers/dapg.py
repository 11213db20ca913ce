"""The DAPG authors' pickles (aravindr93/hand_dapg): a list of dicts of numpy arrays.

A pickle is a program. This one runs with stand-ins for the few names that numpy's pickles use: they take
bytes and shapes and check them, and numpy itself is never handed to the program (its types can be forged
into reading foreign memory). Any other name is refused before it is looked up: nothing of it is imported or
called.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rrl.importers.base import Recorded, array, matrix
from rrl.registry import UserError

OPCODES = frozenset(
    re.findall(
        r"\w+",
        "PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG "
        "LONG1 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE "
        "BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST APPEND APPENDS "
        "EMPTY_DICT DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GET BINGET "
        "LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD",
    )
)
"""What lists, dicts, strings, numbers and numpy's arrays are made of."""
TUPLES = 50_000
"""Tuples in a file, at most: an array has 3, and nested in one another millions would overflow the stack."""


class Refused(Exception):
    """A pickle that holds more than demonstrations do."""


class _Dtype:
    """A number's type, by its name: never numpy's own object, whose insides a pickle could set."""

    __slots__ = ("name",)

    def __init__(self, name: Any, *_: Any) -> None:
        name = name.decode("latin1") if type(name) is bytes else name
        if type(name) is not str or not re.fullmatch(r"[<>=|]?([iu][1248]|f[248]|b1)", name):
            raise Refused(f"an array of {name!r}")
        self.name = name.lstrip("<>=|")

    def __setstate__(self, state: Any) -> None:
        order = state[1] if type(state) is tuple and len(state) > 1 else None
        order = order.decode("latin1") if type(order) is bytes else order
        if order not in ("<", ">", "=", "|"):
            raise Refused(f"a byte order {order!r}")
        self.name = order + self.name.lstrip("<>=|")

    def read(self, data: Any, shape: Any, order: str) -> NDArray[Any]:
        """The array of that shape in these bytes; Refused if they don't fit each other."""
        data = data.encode("latin1") if type(data) is str else data  # a Python 2 pickle
        if type(data) not in (bytes, bytearray) or type(shape) is not tuple:
            raise Refused("an array without bytes or shape")
        if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 8:
            raise Refused(f"an array of shape {shape!r}")
        dtype = np.dtype(self.name)
        if math.prod(shape) * dtype.itemsize != len(data):
            raise Refused(f"{len(data)} bytes for an array of shape {shape!r} and type {self.name}")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C").copy()


class _Array:
    """What `_reconstruct` makes and BUILD fills."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5 or type(state[2]) is not _Dtype:
            raise Refused("an array in no form that numpy writes")
        _, shape, dtype, fortran, data = state
        self.value = dtype.read(data, shape, "F" if fortran is True else "C")


class _Call:
    """A stand-in for a function: it has no attributes that a pickle could set, nor have its subclasses."""

    __slots__ = ()


class _Latin1(_Call):
    """`_codecs.encode`, for the one encoding with which Python 3 pickles bytes in protocol 2."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any = "") -> bytes:
        if type(text) is not str or encoding != "latin1":
            raise Refused("bytes in an encoding other than latin1")
        return text.encode("latin1")


class _NoBytes(_Call):
    """`bytes()`: how protocol 2 writes empty bytes."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> bytes:
        if arguments:
            raise Refused("a call of bytes")
        return b""


class _Scalar(_Call):
    """A numpy number."""

    __slots__ = ()

    def __call__(self, dtype: Any, data: Any = b"") -> Any:
        if type(dtype) is not _Dtype:
            raise Refused("a number without a type")
        return dtype.read(data, (), "C").item()


class _FromBuffer(_Call):
    """How protocol 5 writes arrays: bytes, type, shape and memory order."""

    __slots__ = ()

    def __call__(self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> NDArray[Any]:
        if type(dtype) is not _Dtype or order not in ("C", "F", "K"):
            raise Refused("an array in no form that numpy writes")
        flat = dtype.read(data, shape, order)
        if order != "K" or axes is None:
            return flat
        if type(axes) is not tuple or sorted(map(repr, axes)) != [repr(i) for i in range(flat.ndim)]:
            raise Refused(f"an array with the axes {axes!r}")
        return flat.transpose(axes)


class _MakeDtype(_Call):
    """`numpy.dtype`."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Dtype:
        return _Dtype(*arguments)


class _MakeArray(_Call):
    """`_reconstruct`."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> _Array:
        return _Array()


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Call(),  # only ever the first argument of `_reconstruct`
    ("numpy", "dtype"): _MakeDtype(),
    ("_codecs", "encode"): _Latin1(),
    ("__builtin__", "bytes"): _NoBytes(),
    ("builtins", "bytes"): _NoBytes(),
}
for core in ("numpy.core", "numpy._core"):
    ALLOWED[f"{core}.multiarray", "_reconstruct"] = _MakeArray()
    ALLOWED[f"{core}.multiarray", "scalar"] = _Scalar()
    ALLOWED[f"{core}.numeric", "_frombuffer"] = _FromBuffer()


class Restricted(pickle.Unpickler):
    """Builds lists, dicts, strings, numbers and the stand-ins above, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of that name; `Refused` for any other, which is not even imported."""
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise Refused(f"it asks for {module}.{name}, which no demonstration needs") from None

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refused: demonstrations refer to nothing outside."""
        raise Refused("it refers to objects outside the file")


def read_dapg(source: str) -> list[Recorded]:
    """The episodes of a DAPG pickle; UserError if it is none, or holds anything but arrays."""
    program = Path(source).read_bytes()
    try:
        _scan(program)
        data = Restricted(io.BytesIO(program), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(
            f"{source} is refused: {error}. Only pickles of lists, dicts and numpy arrays are read"
        ) from error
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        raise UserError(f"{source} is not a list of episodes (dicts), as DAPG's demonstrations are")
    return [_episode(f"{source}, episode {i}", each) for i, each in enumerate(data)]


def _scan(program: bytes) -> None:
    """Look through the program before it runs: opcodes, memory that it would claim, and tuples in it."""
    tuples = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if opcode.name not in OPCODES:
            raise Refused(f"it uses {opcode.name}")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= count:
            raise Refused(f"it claims memory for {argument} objects after {count} steps")
        tuples += "TUPLE" in opcode.name
        if tuples > TUPLES:
            raise Refused(f"it makes more than {TUPLES:,} tuples")


def _plain(value: Any) -> Any:
    return value.value if type(value) is _Array else value


def _episode(where: str, data: dict[Any, Any]) -> Recorded:
    initial = data.get("init_state_dict")
    if not all(type(name) is str for name in (*data, *(initial if isinstance(initial, dict) else ()))):
        raise UserError(f"{where}: a dict with keys that are not words")
    if "actions" not in data or not isinstance(initial, dict):
        names = ", ".join(data)
        raise UserError(f"{where}: needs actions and init_state_dict; it has {names or 'nothing'}")
    return Recorded(
        actions=array(_plain(data["actions"]), f"{where}: actions", 2),
        initial={name: _plain(value) for name, value in initial.items()},
        observations=matrix(_plain(data.get("observations")), f"{where}: observations"),
    )
