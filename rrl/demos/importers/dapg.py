"""The DAPG authors' pickles (aravindr93/hand_dapg): a list of dicts of numpy arrays.

A pickle is a program that can call anything, so it is never unpickled. `_Reader` goes through its opcodes and
knows those that lists, dicts, strings, numbers and numpy's arrays are made of. Anything else becomes an `_Odd`,
which says what stood there and is refused where a replay needs it. Nothing in the file is imported, called or handed
to numpy but checked bytes, types and shapes.
"""

from __future__ import annotations

import math
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.demos.importers.base import ROW, Recorded, array, from_states, matrix
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
    "collections OrderedDict": "ordered",
    "collections defaultdict": "default",
    **{f"numpy.{core}.multiarray _reconstruct": "reconstruct" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": "frombuffer" for core in ("core", "_core")},
}
"""What numpy's pickles name, and what stands for it here."""


class Refused(Exception):
    """A pickle that holds more than demonstrations do, or less than a pickle."""


class Nothing(Refused):
    """There are no episodes here."""


class _Name(str):
    """One of the values of `NAMES`: never to be taken for text."""


class _Odd:
    """What no demonstration needs: it stands for itself until somebody needs it, and does nothing."""

    def __init__(self, why: str) -> None:
        self.why = why
        """Why it is refused then."""


class _Dtype:
    """The type of an array's numbers, by its name."""

    def __init__(self, name: str) -> None:
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

    def __init__(self, value: NDArray[Any] | _Odd | None = None) -> None:
        self.value = value


class _Reader:
    """The stack, marks and memo of a pickle, without its powers."""

    def __init__(self, program: bytes) -> None:
        self.program = program
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.left = 64 * len(program) + 1_000_000
        """Bytes of arrays that may still be made or used: a file may refer to its own bytes again and again."""

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
        self.extend([self.pop()])

    def do_appends(self, _: Any) -> None:
        self.extend(self.to_mark())

    def extend(self, items: list[Any]) -> None:
        """Items for the list on top."""
        if not self.odd_on_top():
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
        """Keys and values in turn, into the dict on top. Keys that are neither words nor small numbers, which might
        be long to compare, are left out with their values."""
        if self.odd_on_top():
            return
        into = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is str or (type(key) is int and abs(key) < 2**31):
                into[str(key)] = value

    # --- objects of other kinds ---

    def odd_on_top(self) -> bool:
        """Is what takes the next items an object that nobody reads?"""
        value = self.pop()
        self.stack.append(value)
        return type(value) is _Odd

    def do_empty_set(self, _: Any) -> None:
        self.stack.append(_Odd("it holds a set"))

    def do_additems(self, _: Any) -> None:
        self.to_mark()
        if not self.odd_on_top():
            raise Refused("a set is missing")

    def do_frozenset(self, _: Any) -> None:
        self.to_mark()
        self.do_empty_set(None)

    def do_newobj(self, _: Any) -> None:
        self.do_reduce(None)

    def do_newobj_ex(self, _: Any) -> None:
        self.pop()
        self.do_reduce(None)

    def do_inst(self, name: str) -> None:
        self.to_mark()
        self.stack.append(self.named(name))

    def do_obj(self, _: Any) -> None:
        items = self.to_mark()
        self.stack.append(items[0] if items and type(items[0]) is _Odd else _Odd("it holds an object"))

    def do_persid(self, _: Any) -> None:
        self.stack.append(_Odd("it refers to something outside"))

    def do_binpersid(self, _: Any) -> None:
        self.pop()
        self.do_persid(None)

    # --- the memo ---

    def do_put(self, index: int) -> None:
        value = self.pop()
        self.stack.append(value)
        self.memo[index] = value

    do_binput = do_long_binput = do_put

    def do_memoize(self, _: Any) -> None:
        self.do_put(len(self.memo))

    def do_get(self, index: int) -> None:
        if index not in self.memo:
            raise Refused("it refers to something that it does not hold")
        self.stack.append(self.memo[index])

    do_binget = do_long_binget = do_get

    # --- names and calls ---

    def do_global(self, name: str) -> None:
        self.stack.append(_Name(NAMES[name]) if name in NAMES else self.named(name))

    def named(self, name: str) -> _Odd:
        """What stands for something of this name that is not known here."""
        return _Odd(f"it asks for {name.replace(' ', '.')}, which no demonstration needs")

    def do_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise Refused("it asks for something without a name")
        self.do_global(f"{module} {name}")

    def do_reduce(self, _: Any) -> None:
        arguments, name = self.pop(), self.pop()
        if type(name) is _Odd:
            self.stack.append(name)
            return
        if type(name) is not _Name or type(arguments) is not tuple:
            raise Refused("it calls something that is no function of numpy's")
        self.stack.append(getattr(self, f"make_{name}", self.make_nothing)(*arguments))

    def do_build(self, _: Any) -> None:
        state, target = self.pop(), self.pop()
        if type(target) in (_Odd, dict, list):  # attributes, which nobody reads
            self.stack.append(target)
            return
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

    def make_ordered(self, pairs: Any = ()) -> dict[str, Any]:
        """Python 2 gives the pairs at once, Python 3 one by one afterwards."""
        items: list[Any] = []
        for pair in pairs if type(pairs) in (list, tuple) else ():
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise Refused("an ordered dict of something else than pairs")
            items += pair
        self.stack.append({})
        self.set_items(items)
        made: dict[str, Any] = self.stack.pop()
        return made

    def make_default(self, *_: Any) -> dict[str, Any]:
        return {}

    def make_dtype(self, name: Any = None, *_: Any) -> _Dtype | _Odd:
        name = name.decode("latin1") if type(name) is bytes else name
        if type(name) is not str or not re.fullmatch(r"[<>=|]?([iu][1248]|f[248]|b1)", name):
            return _Odd("an array holds something else than numbers")
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
        value = self.numbers(data, dtype, (), "C")
        return value if isinstance(value, _Odd) else value.item()

    def make_frombuffer(
        self, data: Any = None, dtype: Any = None, shape: Any = None, order: Any = None, axes: Any = None
    ) -> _Array | _Odd:
        if type(order) is not str or order not in ("C", "F", "K"):
            raise Refused("an array in no form that numpy writes")
        value = self.numbers(data, dtype, shape, order)
        if isinstance(value, _Odd):
            return value
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

    def numbers(self, data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any] | _Odd:
        """The array of that shape in these bytes; Refused if they don't fit each other."""
        if type(dtype) is _Odd:
            return dtype
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
    """The episodes of a DAPG pickle, which may stand in lists, tuples and dicts; UserError if it holds none, or what
    a replay needs is anything but numbers."""
    try:
        reader = _Reader(Path(source).read_bytes())
        data = reader.load()
        found = _episodes(reader, data, "")
        return [_episode(f"{source}, {name}", reader, episode) for name, episode in found]
    except UserError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(
            f"{source} is refused: {error}. Only lists, tuples, dicts, numbers and numpy arrays are read of a pickle"
        ) from error


def _episodes(reader: _Reader, data: Any, path: str, depth: int = 3) -> list[tuple[str, dict[str, Any]]]:
    """(name, episode) of all episodes in a list, tuple or dict, at most `depth` levels down; Refused if there are none,
    or in several places."""
    odd = data.value if type(data) is _Array else data
    if isinstance(odd, _Odd):
        raise Refused(odd.why)
    inside = _inside(reader, data)
    if type(data) is dict and "actions" in data:
        return [(path or "episode 0", data)]
    if type(data) in (list, tuple) and not data:
        return []
    episodes = [(_name(data, path, k), v) for k, v in inside if type(v) is dict and "actions" in v]
    if episodes and type(data) is not dict and len(episodes) < len(data):
        raise Refused(f"of the {len(data)} things in its list only {len(episodes)} are episodes, dicts with actions")
    if episodes:
        return episodes
    places: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for key, value in inside if depth else ():
        if type(value) in (list, tuple, dict) and value:
            name = f"{path}[{key!r}]"
            try:
                places[name] = _episodes(reader, value, name, depth - 1)
            except Nothing:
                continue
    if not places:
        has = f"it has {', '.join(k for k, _ in inside[:20]) or 'nothing'}" if type(data) is dict else "it is none"
        raise Nothing(f"it is not a list of episodes, which are dicts with actions and init_state_dict; {has}")
    if len(places) > 1:
        raise Refused(f"it has episodes in {' and '.join(places)}; write those that you want into a file of their own")
    (only,) = places.values()
    return only


def _inside(reader: _Reader, data: Any) -> list[tuple[Any, Any]]:
    """(key or place, value) of what a list, tuple or dict holds; looking costs, since one thing may stand in many
    places, itself too."""
    if type(data) not in (list, tuple, dict):
        return []
    reader.spend(32 * len(data))
    return list(data.items() if type(data) is dict else enumerate(data))


def _name(data: Any, path: str, key: Any) -> str:
    """What an episode is called in messages."""
    name = str(key) if type(data) is dict else f"episode {key}"
    return f"{path}, {name}" if path else name


def _plain(reader: _Reader, value: Any, depth: int = 3) -> Any:
    """A number, an array, or lists of them, `depth` deep; Refused for anything odd in them; other things as None."""
    if type(value) is _Odd:
        raise Refused(value.why)
    if type(value) is _Array:
        if value.value is None:
            raise Refused("it refers to an array before that is filled")
        if isinstance(value.value, _Odd):
            raise Refused(value.value.why)
        reader.spend(8 * value.value.size)  # as float64, once more
        return value.value
    if type(value) in (list, tuple):
        if not depth:
            raise Refused("its lists of numbers are too deep")
        return [_plain(reader, item, depth - 1) for _, item in _inside(reader, value)]
    return value if type(value) in (int, float, bool, str) else None


def _optional(reader: _Reader, value: Any) -> Any:
    """`_plain`, or None for what a replay can do without."""
    try:
        return _plain(reader, value)
    except Refused:
        return None


def _states(reader: _Reader, data: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """robohive's `env_infos` > `state`, or `env_infos/state/<name>`: arrays [L or L + 1, ...]."""
    infos, inside = data.get("env_infos"), "env_infos/state/"
    state = infos.get("state") if type(infos) is dict else None
    given = {name[len(inside) :]: value for name, value in data.items() if name.startswith(inside)}
    given |= state if type(state) is dict else {}
    values = {name: _optional(reader, value) for name, value in given.items()}
    return {k: v for k, v in values.items() if isinstance(v, np.ndarray) and math.prod(v.shape[1:]) <= ROW}


def _episode(where: str, reader: _Reader, data: dict[str, Any]) -> Recorded:
    actions = array(_plain(reader, data["actions"]), f"{where}: actions", 2)
    initial = data.get("init_state_dict")
    if type(initial) is dict:  # what of it is needed, the task knows
        start = {name: _optional(reader, value) for name, value in initial.items()}
        seen = matrix(_optional(reader, data.get("observations")), f"{where}: observations")
        return Recorded(actions, start, observations=seen)
    states = _states(reader, data)
    if not states:
        raise UserError(f"{where}: needs actions and init_state_dict; it has {', '.join(data)}")
    return from_states(where, actions, states)
