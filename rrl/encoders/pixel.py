"""What encoders share that learn together with an agent: views of stored frames, convolutions, heads.

The network is the one of RAD, CURL and SAC+AE: 3x3 convolutions, shared by actor and critics, and a head
of each one's own (a linear layer and LayerNorm). An agent trains the convolutions with its critics and with
`loss`, never with its actor (but for FERM's cloning). Frames stay uint8 and in the order [B, H, W, C] until the
convolutions, which then compute in `channels_last` without a copy: measured 2.2 times faster on a CPU than with
channels first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn import functional as F

from rrl.encoders.base import Encoder, Inference
from rrl.encoders.settings import pixel as settings
from rrl.registry import UserError

Code = Callable[[Tensor], Tensor]
"""Views uint8 [B, h, w, C] -> codes float32 [B, code_dim]: a head on `trunk`."""


class PixelEncoder(settings.PixelEncoder, Encoder):
    """Base of encoders that learn. Stored frames are uint8 [B, render, render, C], C = 3 * cameras * stack,
    oldest first; the network sees *views* of them, uint8 [B, side, side, C] (`side` is the config's).
    """

    doubled: ClassVar[bool] = False
    """Does a second optimiser step on the encoder's parameters by `loss`, together with its own ones?"""
    own_weight_decay: ClassVar[float] = 0.0
    """Adam's (L2) weight decay for `own_parameters`."""
    unused_offsets: ClassVar[int] = 0
    """How many of the last of the `render - crop + 1` crop offsets are never drawn."""

    config: settings.PixelEncoder.Config
    mixed: bool
    """Compute convolutions, the heads' linear layers and SAC+AE's decoder in bf16, from weights kept in
    float32. An agent sets it (`Experiment.precision`); copies of the encoder have it too."""

    def __init__(self, config: settings.PixelEncoder.Config, cameras: int) -> None:
        super().__init__(config, cameras)
        self.mixed = False
        if cameras < 1:
            raise ValueError(f"{type(self).__name__} encodes pictures: needs 1 camera or more, got {cameras}")
        self.channels = 3 * cameras * config.stack
        self.dim = config.filters * config.map_side**2
        with torch.random.fork_rng(devices=()):  # torch draws weights of its own from its global generator
            layers: list[nn.Module] = []
            for i in range(config.layers):
                channels, stride = (config.filters, 1) if i else (self.channels, 2)
                layers += [nn.Conv2d(channels, config.filters, 3, stride=stride), nn.ReLU(True)]
            self.convolutions = nn.Sequential(*layers)
            self.objective = self.make_objective()
        self.to(memory_format=torch.channels_last)
        self.initialise(torch.Generator().manual_seed(0))

    def make_objective(self) -> nn.Module:
        """What `loss` learns beside the encoder: nothing, unless a subclass says so. Its weights come
        later, from `initialise`."""
        return nn.Module()

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew from a CPU generator: see `draw_weights`."""
        draw_weights(self, generator)

    def head(self, generator: torch.Generator) -> Head:
        """A fresh `Head` on the CPU: `trunk`'s [B, dim] -> codes float32 [B, code_dim]. The agent makes one
        for its actor and one for its critics."""
        with torch.random.fork_rng(devices=()):
            head = Head(nn.Linear(self.dim, self.code_dim), nn.LayerNorm(self.code_dim))
        draw_weights(head, generator)
        return head

    @property
    def code_dim(self) -> int:
        """Length of the codes that heads make."""
        return self.config.features

    # --- frames to views -----------------------------------------------------------------------------

    def view(self, frames: Tensor, *, exploring: bool = False) -> Tensor:
        """Frames -> the views used for acting and evaluation: the centre, or placed in the centre.

        `exploring`: what an agent sees while it collects. The same but for 'translate', where it is the frame itself
        if that is as large as the canvas: RAD's code places the centre in updates and evaluations alone.
        """
        self._check(frames, self.config.render)
        side, centre = self.config.side, self.config.centre
        if self.config.augmentation != "translate" or (exploring and self.config.render >= side):
            return middle(frames, side)
        start = (side - centre) // 2
        return padded(middle(frames, centre), start, side - centre - start)

    def augment(self, *stacks: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random views of each of these batches of frames, row by row: all frames of a stack have the same
        offset. 'crop' draws an offset for every stack by itself, 'translate' one per row that all `stacks`
        (such as s and s') share, as RAD does. `generator` is a CPU generator; frames may be anywhere."""
        for frames in stacks:
            self._check(frames, self.config.render)
        render, side = self.config.render, self.config.side
        if self.config.augmentation == "none":
            return stacks
        if self.config.augmentation == "translate":
            centre = self.config.centre
            margin = side - centre
            at = torch.randint(margin + 1, (2, len(stacks[0])), generator=generator)
            placed = (padded(middle(frames, centre), margin, margin) for frames in stacks)
            return tuple(windows(pictures, side, *(margin - at)) for pictures in placed)
        count = render - side + 1 - self.unused_offsets
        offsets = [torch.randint(count, (2, len(frames)), generator=generator) for frames in stacks]
        return tuple(windows(frames, side, *at) for frames, at in zip(stacks, offsets, strict=True))

    # --- views to features ---------------------------------------------------------------------------

    def trunk(self, views: Tensor) -> Tensor:
        """Views -> the last convolution's maps, flattened: float32 [B, dim], or bf16 if `mixed`. ValueError
        for other pictures."""
        self._check(views, self.config.side)
        pictures = views.permute(0, 3, 1, 2)
        maps = self._mixed(pictures) if self.mixed else self.convolutions(pictures.float().div_(255))
        return maps.permute(0, 2, 3, 1).flatten(1)  # no copy in channels_last

    def _mixed(self, pictures: Tensor) -> Tensor:
        """`convolutions` in bf16, which holds the uint8 pictures exactly: the weights take the 1 / 255."""
        maps = pictures.bfloat16()
        scale = 1 / 255
        for layer in self.convolutions:
            if isinstance(layer, nn.Conv2d):
                weight, bias = (layer.weight * scale).bfloat16(), layer.bias
                assert bias is not None
                maps, scale = _relu(F.conv2d(maps, weight, bias.bfloat16(), layer.stride)), 1.0
        return maps

    def forward(self, frames: Tensor) -> Tensor:
        """Frames -> `trunk` of their `view`: float32 [B, dim], or bf16 if `mixed`."""
        return self.trunk(self.view(frames))

    def inference(self, how: Inference) -> Callable[[Tensor], Tensor]:
        """`forward` without gradients, with the weights as they are when it is called, in float32 (no TF32).
        Moves the encoder to `how.device`. UserError for another precision or backend."""
        return exactly(self, how)

    def trunk_parameters(self) -> list[nn.Parameter]:
        """The convolutions' weights and biases."""
        return list(self.convolutions.parameters())

    def _check(self, pictures: Tensor, side: int) -> None:
        if pictures.dtype != torch.uint8 or pictures.shape[1:] != (side, side, self.channels):
            raise ValueError(
                f"{type(self).__name__} for {self.cameras} camera(s) and {self.config.stack} frame(s) takes "
                f"uint8 [N, {side}, {side}, {self.channels}] here, got {pictures.dtype} "
                f"{list(pictures.shape)}: render what `Config.frames()` asks for"
            )

    # --- the encoder's own objective -----------------------------------------------------------------

    def loss(
        self, code: Code, target_code: Code, anchor: Tensor, frames: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """The encoder's own loss of a batch, a scalar; None: it has none.

        `code`: the critics' head on `trunk`, with gradients; `target_code`: the same of the target network,
        whose gradients are never taken. `anchor`: the views of the agent's own update; `frames`: the stored
        frames that they are views of.
        """
        return None

    def own_parameters(self) -> list[nn.Parameter]:
        """What `loss` learns beside the encoder; empty if it has no loss of its own."""
        return list(self.objective.parameters())


class _Relu(torch.autograd.Function):
    """ReLU of finite bf16 numbers in place, read as integers of 16 bits: these are negative for the same ones
    (NaNs, which have the sign bit on x86, become 0). torch's own converts to float32 and back: for 128 maps
    [32, 53, 53] on two cores with AMX 1.8 ms instead of 0.4, and backwards 3.3 instead of 1.7."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.view(torch.int16).clamp_(min=0)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], y, 0, math.inf)  # type: ignore[no-any-return]


def _relu(x: Tensor) -> Tensor:
    return _Relu.apply(x)  # type: ignore[no-any-return]


class Head(nn.Sequential):
    """A linear layer on `trunk`'s maps, which computes in their precision, then the rest in float32."""

    def forward(self, maps: Tensor) -> Tensor:
        """[B, dim] of float32 or bf16 -> float32 [B, code_dim]."""
        linear, *rest = self
        assert isinstance(linear, nn.Linear)
        x = F.linear(maps, linear.weight.to(maps.dtype), linear.bias.to(maps.dtype)).float()
        for layer in rest:
            x = layer(x)
        return x


def windows(pictures: Tensor, side: int, top: Tensor, left: Tensor) -> Tensor:
    """uint8 [B, H, W, C] and int64 offsets [B] -> the windows [B, side, side, C] that start there.

    Each row of a window is one piece of memory, so a window is `side` long pieces chosen from all that there
    are (they overlap): for 128 windows, 100 -> 84 pixels with 9 channels, 1.1 ms on one CPU core. Indexing
    pixel by pixel took 4 to 17 ms, indexing whole windows of an unfolded view 8 ms, a Python loop 2 to 7 ms.
    """
    count, height, width, channels = pictures.shape
    pieces = (count * height * width - side + 1, side * channels)
    rows = torch.arange(count)[:, None] * height + top[:, None] + torch.arange(side)
    starts = (rows * width + left[:, None]).flatten().to(pictures.device)
    memory = pictures.contiguous().as_strided(pieces, (channels, 1))
    return memory.index_select(0, starts).view(count, side, side, channels)


def middle(pictures: Tensor, side: int) -> Tensor:
    """[B, H, H, C] -> its centre [B, side, side, C], a view; of an odd margin, the smaller half is above and left."""
    start = (pictures.shape[1] - side) // 2
    return pictures[:, start : start + side, start : start + side]


def padded(pictures: Tensor, before: int, after: int) -> Tensor:
    """[B, H, W, C] with black pixels `before` and `after` it in height and width."""
    count, height, width, channels = pictures.shape
    canvas = pictures.new_zeros(count, before + height + after, before + width + after, channels)
    canvas[:, before : before + height, before : before + width] = pictures
    return canvas


@torch.no_grad()
def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all layers in `module` anew, as SAC+AE's authors do, from a CPU generator.

    Linear layers: orthogonal. Convolutions, transposed too: delta-orthogonal, which is zero but for the
    centre tap, and that is orthogonal with gain sqrt(2). Biases are zero, LayerNorms the identity.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(_orthogonal(layer.weight.shape, 1.0, generator))
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            centre = _orthogonal(layer.weight.shape[:2], math.sqrt(2), generator)
            layer.weight.zero_()[:, :, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = centre
        elif isinstance(layer, nn.LayerNorm):
            layer.weight.fill_(1)
        else:
            continue
        if layer.bias is not None:
            layer.bias.zero_()


def _orthogonal(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> Tensor:
    return nn.init.orthogonal_(torch.empty(shape), gain, generator)


def exactly(encoder: Encoder, how: Inference) -> Callable[[Tensor], Tensor]:
    """`encoder`, moved to `how.device`, as a function without gradients in float32 (no TF32, no algorithms
    whose sums depend on timing); UserError if `how` asks for another precision or backend."""
    if (how.backend, how.precision) != ("torch", "fp32"):
        raise UserError(
            f"{type(encoder).__name__} can't compute by {how.backend} in {how.precision}: set "
            "Experiment.backend = 'torch' and Experiment.precision = 'fp32'"
        )
    encoder.to(how.device)

    def features(frames: Tensor) -> Tensor:
        with torch.no_grad(), cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            values: Tensor = encoder(frames.to(how.device))
        return values

    return features
