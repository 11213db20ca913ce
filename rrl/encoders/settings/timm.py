"""Any network of the package `timm`, by its name there.

What a network's pictures look like is timm's own data (`PretrainedCfg`). Its `crop_mode` may be anything: 'center',
'squash' and 'border' are one and the same for the square pictures that are rendered.
"""

from __future__ import annotations

import functools
import importlib
import math
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from rrl.encoders.input import Input
from rrl.encoders.pretrained import Pretrained
from rrl.encoders.settings.frozen import WEIGHTS_REMEDY, FrozenEncoder
from rrl.registry import InputFile, UserError, mistake, register

if TYPE_CHECKING:
    from torch import nn

WORD = "pretrained"
"""The weights that a name with a tag stands for."""
INSTALL = "pip install 'rrl[timm]'"
REMEDY = f"'{WORD}': those that Timm.model names, fetched from Hugging Face; or {WEIGHTS_REMEDY}"
Pool = Literal["avg", "token"]


class Unfit(UserError):
    """A network that can't be had."""

    def __init__(self, field: str, message: str, hint: str) -> None:
        super().__init__(f"Timm.{field}: {message}\n  {hint}")
        self.parts = (field, message, hint)


@functools.cache
def described(model: str, size: int | None, pool: Pool | None) -> Pretrained:
    """What timm says of a network, with the number of its features; Unfit where there is none such."""
    known = _known(model)
    channels, height, width = known.input_size
    if channels != 3 or (height != width and size is None):
        takes = f"{model} takes pictures of {height} x {width} pixels and {channels} channels"
        raise Unfit("size" if channels == 3 else "model", takes, "square ones of 3 channels are rendered")
    side = size or height
    whole = math.floor(side / known.crop_pct)  # as timm rounds
    if whole < side:
        raise Unfit("model", f"{model} takes pictures in a black frame, which nothing renders", "take another")
    published = known.url if re.search(r"-[0-9a-f]{8,}\.pth$", known.url or "") else None
    classifiers = (known.classifier,) if isinstance(known.classifier, str) else known.classifier or ()
    return Pretrained(
        ".".join(filter(None, (known.architecture, known.tag))),
        _features(model, size, pool, side),
        Input(side, tuple(known.mean), tuple(known.std), whole if whole > side else None, known.interpolation),
        url=None if known.hf_hub_id else published,
        trained_on=WORD,
        classifier=tuple(f"{name}." for name in classifiers),
        hub=known.hf_hub_id,
    )


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise Unfit("model", "timm's networks need the package timm", INSTALL) from error


def _known(model: str) -> Any:
    """timm's PretrainedCfg of a name with or without a tag."""
    timm = _timm()
    try:
        return timm.get_pretrained_cfg(model, allow_unregistered=False)
    except RuntimeError as error:
        close = get_close_matches(model, [*timm.list_models(pretrained=True), *timm.list_models()], 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`timm.list_pretrained()` gives the names"
        raise Unfit("model", f"timm {timm.__version__} knows no network {model!r}", hint) from error


def network(model: str, size: int | None, pool: Pool | None, **loading: Any) -> nn.Module:
    """timm's network without its classifier: [N, 3, size, size] -> [N, features]. Raises whatever timm does."""
    if size and _known(model).fixed_input_size:
        loading["img_size"] = size
    made: Any = _timm().create_model(model, num_classes=0, **loading)
    if getattr(made, "dynamic_img_size", False):  # else it would resample position embeddings at every picture
        made = _timm().create_model(model, num_classes=0, dynamic_img_size=False, **loading)
    made.pretrained_cfg.pop("state_dict", None)  # `loading`'s, a copy
    if pool == "token" and getattr(made, "cls_token", None) is None:
        raise Unfit("pool", f"{model} has no class token", "take another `pool`")
    if pool:
        made.reset_classifier(0, pool)
    return cast("nn.Module", made)


def _features(model: str, size: int | None, pool: Pool | None, side: int) -> int:
    """How many a picture has: found without weights, memory or arithmetic."""
    import torch

    try:
        with torch.device("meta"), torch.no_grad():
            made = network(model, size, pool).eval()
            patch = getattr(getattr(made, "patch_embed", None), "patch_size", 1)
            if side % (patch := patch if isinstance(patch, int) else max(patch)):
                fit = f"take {side // patch * patch} or {-(-side // patch) * patch}"
                raise Unfit("size", f"{side} px are no whole number of {model}'s patches of {patch} px", fit)
            return int(made(torch.empty(1, 3, side, side)).shape[1])
    except UserError:
        raise
    except Exception as error:  # whatever timm and torch raise for sizes and pools that a network can't have
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        field = "size" if size else "pool" if pool else "model"
        raise Unfit(field, f"{model} can't be had so: {reason}", "take another, or leave it out") from error


@register
class Timm(FrozenEncoder):
    """Any network of the package timm (DINOv2, DINOv3, SigLIP, MAE, ConvNeXt, ...), with timm's pictures for it."""

    implemented_in = "rrl.encoders.timm"
    packages = ("torch", "torchvision", "timm")

    class Config(FrozenEncoder.Config):
        """Settings of `Timm`."""

        model: str = "vit_small_patch16_224.dino"
        """timm's name, such as 'convnext_tiny.fb_in1k': the network and, after the dot, the weights. Without that it
        means the weights that the installed timm puts first."""
        size: Annotated[int, Field(ge=16, le=1024)] | None = None
        """Side of the pictures in pixels; None: as the weights were trained. A transformer's position embeddings are
        resampled for it, as timm does that, and its patches must fit. DINOv2's own is 518; 224 is usual."""
        pool: Pool | None = None
        """What the features are: 'avg' (mean over places) or 'token' (a transformer's class token); None: timm's own
        choice for the network."""
        weights: Annotated[str | None, InputFile(names=lambda component: (WORD,), remedy=lambda: REMEDY)] = WORD
        """'pretrained' (those that timm names: in Hugging Face's cache, else a download), the path of a .safetensors or
        .pth file that timm can read for this network, relative to the gin file, or None: explicitly untrained."""

        @model_validator(mode="after")
        def _can_be_had(self) -> Self:
            try:
                described(self.model, self.size, self.pool)
            except Unfit as error:
                raise mistake(*error.parts) from error
            return self

        @property
        def source(self) -> Pretrained:
            """As timm describes it."""
            return described(self.model, self.size, self.pool)

        @property
        def network(self) -> str:
            """timm's name, with the tag."""
            return self.source.name

        def label(self) -> str:
            """timm's name of the network, and what isn't as timm has it."""
            changes = [f"{self.size} px"] if self.size else []
            name = " ".join([self.network, *changes, *filter(None, [self.pool])])
            return super().label().replace("Timm", name, 1)
