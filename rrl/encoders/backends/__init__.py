"""How frozen networks compute while a run goes on: one module for each backend, registered by its name."""

from rrl.encoders.backends.base import Backend, choose, encode, facts, get, names, register, registered, ways
from rrl.encoders.backends.openvino import OpenVINO
from rrl.encoders.backends.pytorch import Torch

__all__ = [
    "Backend",
    "OpenVINO",
    "Torch",
    "choose",
    "encode",
    "facts",
    "get",
    "names",
    "register",
    "registered",
    "ways",
]
