"""Encoders of every registered kind, without weights that need a download."""

import pytest
import torch

from rrl import registry
from rrl.encoders import FixedEncoder, PixelCNN, Timm
from rrl.encoders.fixed import save_encoder
from rrl.encoders.pixel import PixelEncoder

TINY = "test_vit.r160_in1k"
"""One of the networks of timm that are made for tests: a transformer of 160-px pictures."""
SMALLEST = {"R3M": {"depth": 18}, "VDVAE": {"size": 32}, "Timm": {"model": TINY}}
"""Settings of the smallest of a family, where its default is large."""


def untrained(encoder_class, cameras, folder, seed=0):
    """An encoder with weights that `seed` decides, if it has any."""
    fields = encoder_class.Config.model_fields
    settings = {"weights": None, "seed": seed} if "weights" in fields else {}
    settings |= SMALLEST.get(encoder_class.__name__, {})
    if encoder_class is Timm:
        pytest.importorskip("timm", reason="pip install 'rrl[timm]'")
    if encoder_class is FixedEncoder:
        generator, path = torch.Generator().manual_seed(seed), folder / f"{cameras}_{seed}.safetensors"
        source = PixelCNN(PixelCNN.Config(), cameras)
        source.initialise(generator)
        save_encoder(path, source, source.head(generator), {})
        settings = {"file": str(path)}
    encoder = registry.build(encoder_class.Config(**settings), cameras=cameras)
    if isinstance(encoder, PixelEncoder):
        encoder.initialise(torch.Generator().manual_seed(seed))
    return encoder
