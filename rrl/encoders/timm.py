"""Any network of the package `timm`, by its name there."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from rrl.encoders import weights
from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.settings import timm as settings


class Timm(settings.Timm, FrozenEncoder):
    """Any network of the package timm (DINOv2, DINOv3, SigLIP, MAE, ConvNeXt, ...), with timm's pictures for it."""

    config: settings.Timm.Config

    def make_network(self) -> nn.Module:
        """timm's network without its classifier."""
        return settings.network(self.config.model, self.config.size, self.config.pool)

    def load_network(self, file: Path) -> nn.Module:
        """As timm loads it: it knows the names in publishers' own files, and resamples position embeddings."""
        tensors = weights.read(file, self.source)
        loading = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": tensors, "classifier": None}}
        try:
            return settings.network(self.config.model, self.config.size, self.config.pool, **loading)
        except Exception:  # whatever its readers raise for strangers
            return super().load_network(file)  # says what differs
