"""Encoders trained on pictures before anything acts. Importing this package registers `Pretraining`."""

from rrl.pretrain.pretraining import Pretraining

__all__ = ["Pretraining"]
