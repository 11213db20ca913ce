"""RAD, CURL and SAC+AE: SAC with their published settings, each with the encoder that makes the method.

RAD (Laskin et al. 2020) with `PixelCNN`, CURL (Laskin, Srinivas & Abbeel 2020) with `ContrastiveCNN`,
SAC+AE (Yarats et al. 2021) with `AutoencoderCNN`; settings as in their released code, whose results the
paper's table 1 copies.
"""

from __future__ import annotations

from rrl.agents.sac import SAC
from rrl.agents.settings import rad as settings


class RAD(settings.RAD, SAC):
    """SAC from randomly cropped or translated pictures, and nothing else."""


class CURL(settings.CURL, SAC):
    """RAD's crops, and a contrastive loss on two crops of the same pictures at every update."""


class SACAE(settings.SACAE, SAC):
    """SAC+AE: no augmentation; the convolutions also learn to reconstruct the picture."""
