"""Stand-ins for what shipped gin files ask users to make or get, so that all can be read: an exported encoder and
pretrained ones (small, untrained), and empty files for demonstrations and for published weights."""

from __future__ import annotations

from pathlib import Path

import torch

from rrl.encoders import VAE
from rrl.encoders.fixed import save_encoder
from rrl.encoders.pixel_cnn import PixelCNN
from rrl.encoders.task import save_encoder as save_pretrained

EMPTY = (
    "door_human.npz",
    "pen_100.npz",
    "relocate_100.npz",
    "imagenet64-iter-1600000-model-ema.th",
    "r3m_50.pt",
    "vc1_vitb.pth",
    "vip.pt",
)
PRETRAINED = ("adroit_door", "adroit_door_expert_only", "adroit_pen")


def put(folder: Path) -> None:
    """Write them into this folder: gin files that are read there find them."""
    encoder = PixelCNN(PixelCNN.Config(render=24, crop=20, filters=4), cameras=1)
    for name in EMPTY:
        (folder / name).touch()
    save_encoder(folder / "cartpole_rad.safetensors", encoder, encoder.head(torch.Generator()), {})
    (folder / "runs").mkdir()
    vae = VAE(VAE.Config(weights=None, latent=8, size=32), cameras=1)
    for name in PRETRAINED:
        data = {"env": {"env": name.removesuffix("_expert_only")}}
        save_pretrained(folder / "runs" / f"vae_{name}.safetensors", vae, data, {})
