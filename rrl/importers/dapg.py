"""The DAPG authors' pickles (aravindr93/hand_dapg): a list of dicts of numpy arrays.

A pickle is a program. This one runs with nothing but what builds numpy arrays: a file that names anything
else is refused at that name, before it is looked up, so nothing of it is imported or called.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy._core import multiarray

from rrl.importers.base import Array, Recorded, array
from rrl.registry import UserError


class _Latin1:
    """`_codecs.encode`, for the one encoding with which Python 3 pickles bytes in protocol 2."""

    __slots__ = ()  # a pickle can set attributes of what it gets hold of

    def __call__(self, text: Any, encoding: Any = "") -> bytes:
        if type(text) is not str or encoding != "latin1":
            raise pickle.UnpicklingError("bytes in an encoding other than latin1")
        return text.encode("latin1")


class _FromBuffer:
    """numpy's way back from protocol 5: bytes, dtype, shape and memory order."""

    __slots__ = ()

    def __call__(self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Any:
        flat = np.frombuffer(data, dtype)
        if order != "K" or axes is None:
            return flat.reshape(shape, order=order)
        return flat.reshape(shape).transpose(np.argsort(axes))


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _Latin1(),
    **{
        (f"numpy.{core}.multiarray", name): getattr(multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer() for core in ("core", "_core")},
}
"""All that a demonstration's pickle can name."""


class Restricted(pickle.Unpickler):
    """Builds lists, dicts, strings, numbers and numpy arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """The allowed object of that name; UnpicklingError for any other, which is not even imported."""
        try:
            return ALLOWED[module, name]
        except KeyError:
            message = f"it asks for {module}.{name}, which no demonstration needs"
            raise pickle.UnpicklingError(message) from None

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refused: demonstrations refer to nothing outside."""
        raise pickle.UnpicklingError("it refers to objects outside the file")


def read_dapg(source: str) -> list[Recorded]:
    """The episodes of a DAPG pickle; UserError if it is none, or holds anything but arrays."""
    try:
        with Path(source).open("rb") as file:
            data = Restricted(file, encoding="latin1").load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(
            f"{source} is refused: {error}. Only pickles of lists, dicts and numpy arrays are read"
        ) from error
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        raise UserError(f"{source} is not a list of episodes (dicts), as DAPG's demonstrations are")
    return [_episode(f"{source}, episode {i}", each) for i, each in enumerate(data)]


def _episode(where: str, data: dict[Any, Any]) -> Recorded:
    initial = data.get("init_state_dict")
    if "actions" not in data or not isinstance(initial, dict):
        names = ", ".join(map(str, data))
        raise UserError(f"{where}: needs actions and init_state_dict; it has {names or 'nothing'}")

    def optional(name: str) -> Array | None:
        return array(data[name], f"{where}: {name}") if name in data else None

    return Recorded(
        actions=array(data["actions"], f"{where}: actions"),
        initial={
            str(name): array(value, f"{where}: init_state_dict[{name!r}]") for name, value in initial.items()
        },
        observations=optional("observations"),
    )
