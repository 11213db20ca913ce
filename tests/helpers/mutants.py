"""Damaged and forged files, from seeds: what a fuzz test hands to a reader, and what it asks of the answer."""

from __future__ import annotations

import copy
import json
import math
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from rrl.registry import UserError
from rrl.store import checkpoint

COUNT = int(os.environ.get("RRL_FUZZ", 0))
"""Mutants of each format in place of the tests' own number."""
SECONDS = 2.0
"""Of processor time that reading a file may take."""
MEMORY = 200 * 2**20
"""Bytes that reading a file may take beyond those that the process has."""
DEEP = 3000
"""Lists within lists: more than Python's parsers of JSON and gin go into."""

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 2**31, -(2**63), 2**64, 10**30, 10**400, 1.5, -0.0, 1e-320, 1e308),
    *(math.nan, math.inf, -math.inf, "", "x", "0", "1e5", "-3", "None", "../../x", "/", "a\0b", "\ud800", "é" * 50),
    *("x" * 5000, "%s{0}", [], {}, [None], [[]], [1, "a"], {"": None}, {"a": {"b": []}}, ["x"] * 300),
)
"""What stands in for a value of JSON."""


class _Late(BaseException):
    """The reader took too long."""


def trial(read: Callable[[], object], memory: int = MEMORY) -> str:
    """What is wrong with how a reader takes a file, in words; empty if it reads it or tells the user why not."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        with _timed(), _bounded(before, memory):
            read()
    except UserError as error:
        return "" if str(error) else "a UserError without words"
    except _Late:
        return f"more than {SECONDS} s"
    except BaseException as error:  # a reader's exit too
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/rrl/" in f.filename]
        where = f"{frames[-1].filename.rpartition('/rrl/')[2]}:{frames[-1].lineno} {frames[-1].name}" if frames else "?"
        return f"{type(error).__name__} in {where}: {str(error)[:200]}"
    return ""


@contextmanager
def _timed() -> Iterator[None]:
    def late(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS / 4)  # again where nothing could be raised
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _bounded(limits: tuple[int, int], memory: int) -> Iterator[None]:
    """What is asked of the system beyond `memory` is a MemoryError, touched or not."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def faults(count: int, make: Callable[[Random], str], read: Callable[[], object]) -> str:
    """Lines of those of `count` mutants that a reader takes otherwise than it should: the seed of each, what `make` did
    with a generator of that seed, and what came of it."""
    found = []
    for seed in range(COUNT or count):
        what = make(Random(seed))
        if fault := trial(read):
            found.append(f"seed {seed}: {what}: {fault}")
    return "\n".join(found)


def damaged(rng: Random, data: bytes) -> tuple[str, bytes]:
    """(what was done, the bytes) after one to three accidents."""
    told = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        what, data = _accident(rng, data)
        told.append(what)
    return ", ".join(told), data


def _accident(rng: Random, data: bytes) -> tuple[str, bytes]:
    size = len(data)
    # Headers stand at either end: half of all accidents happen there.
    near = rng.choice((size, size, min(size, 400)))
    at = rng.randrange(max(near, 1)) if rng.random() < 0.7 else max(0, size - 1 - rng.randrange(max(near, 1)))
    length = rng.choice((1, 2, 4, 8, 60, 1000))
    kind = rng.choice(("flip", "set", "cut", "lose", "twice", "swap", "add"))
    if kind == "flip" and data:
        bit = 1 << rng.randrange(8)
        return f"bit {bit} of byte {at} flipped", data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
    if kind == "set":
        byte = rng.choice((0, 255, 0x7F, 0x80, ord("9"), ord("["), ord("{")))
        return f"{length} bytes at {at} set to {byte}", data[:at] + bytes([byte]) * length + data[at + length :]
    if kind == "cut":
        return f"cut to {at} bytes", data[:at]
    if kind == "lose":
        return f"{length} bytes at {at} lost", data[:at] + data[at + length :]
    if kind == "twice":
        return f"{length} bytes at {at} twice", data[: at + length] + data[at:]
    if kind == "swap":
        other = rng.randrange(max(size, 1))
        piece = data[other : other + length]
        return f"{length} bytes of {other} at {at}", data[:at] + piece + data[at + len(piece) :]
    return f"{length} bytes put in at {at}", data[:at] + rng.randbytes(length) + data[at:]


def forged(rng: Random, value: Any) -> tuple[str, Any]:
    """(what was done, a JSON value) with one or two of its parts replaced, renamed, removed, repeated or wrapped."""
    value, told = copy.deepcopy(value), []
    for _ in range(rng.choice((1, 1, 2))):
        what, value = _forgery(rng, value)
        told.append(what)
    return ", ".join(told), value


def _forgery(rng: Random, value: Any) -> tuple[str, Any]:
    places = list(_places(value, ()))
    # The upper levels are as likely as the many leaves below them.
    depth = rng.randrange(max(len(place) for place in places) + 1)
    place = rng.choice([place for place in places if len(place) == depth])
    if not place:
        return "all of it replaced", rng.choice(ODD)
    parent = value
    for key in place[:-1]:
        parent = parent[key]
    key, where = place[-1], ".".join(map(str, place))
    kind = rng.choice(("replace", "replace", "replace", "remove", "rename", "wrap", "text", "like"))
    if kind == "remove":
        del parent[key]
    elif kind == "rename" and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    elif kind == "wrap":
        parent[key] = rng.choice(([parent[key]], {"a": parent[key]}, [parent[key]] * 3))
    elif kind == "text":
        parent[key] = str(parent[key])
    elif kind == "like" and isinstance(parent[key], int | float):
        number = parent[key]
        parent[key] = rng.choice((number + 1, -number, number * 10**9, number / 7, number - 1))
    elif kind == "like" and isinstance(parent[key], str):
        parent[key] = damaged(rng, parent[key].encode(errors="replace"))[1].decode(errors="replace")
    else:
        kind, parent[key] = "replace", copy.deepcopy(rng.choice(ODD))
        return f"{where} = {parent[key]!r:.60}", value
    return f"{where} {kind}", value


def _places(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield place
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from _places(part, (*place, key))


def json_text(rng: Random, value: Any) -> tuple[str, str]:
    """(what was done, a text) of JSON: forged values as a rule, and sometimes what no writer of JSON writes."""
    kind = rng.randrange(12)
    if kind == 0:
        return f"{DEEP} lists deep", json.dumps(value).replace(":", ":" + "[" * DEEP, 1)
    if kind == 1:
        return f"{DEEP} objects deep", '{"a":' * DEEP + "1" + "}" * DEEP
    if kind == 2:
        what, data = damaged(rng, json.dumps(value).encode())
        return what, data.decode(errors="replace")
    if kind == 3:
        return "a number of 5000 digits", json.dumps(value).replace(": ", ": " + "9" * 5000 + ', "more": ', 1)
    what, other = forged(rng, value)
    return what, json.dumps(other)


def other_tensor(rng: Random, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """(what was done, the tensors) after one of them was changed as a forger may."""
    name = rng.choice(list(tensors))
    x = tensors[name]
    others: dict[str, Tensor | None] = {
        "gone": None,
        "float64": x.double(),
        "bfloat16": x.bfloat16(),
        "float8": x.float().to(torch.float8_e4m3fn),
        "complex": x.to(torch.complex64),
        "int8": x.to(torch.int8),
        "bool": x.bool(),
        "a number": x.flatten()[:1].sum(),
        "flat": x.flatten(),
        "one more dimension": x[None],
        "twice": torch.cat([x.flatten(), x.flatten()]),
        "nothing": x.flatten()[:0],
        "huge": x * 1e30 if x.is_floating_point() else x + 100,
        "nan": x * torch.nan if x.is_floating_point() else -x.to(torch.int64),
    }
    what = rng.choice(list(others))
    rest = {other: t for other, t in tensors.items() if other != name}
    new = others[what]
    return f"{name} {what}", rest if new is None else rest | {name: new.contiguous().clone()}


def signed(tensors: Mapping[str, Tensor], values: str) -> bytes:
    """A file of rrl's, whatever stands in it; `values`: as text."""
    metadata = {"format": checkpoint.FORMAT, "values": values}
    metadata[checkpoint.CHECKSUM] = checkpoint._checksum(tensors, values)
    return save(tensors, metadata)
