"""Weights of encoders that were damaged or forged: published ones, and rrl's own exported and pretrained encoders."""

import io
import json

import pytest
import torch
from helpers import mutants
from safetensors.torch import save
from torch import nn

from rrl.config import ginfile
from rrl.encoders import VAE, PixelCNN, fixed, task, weights
from rrl.encoders.input import IMAGENET
from rrl.encoders.weights import Checkpoint, Pretrained
from rrl.envs.adroit import Adroit
from rrl.registry import build
from rrl.store import checkpoint

ENV = Adroit(Adroit.Config(task="door"))
SOURCES = [
    Pretrained("tiny", 4, IMAGENET),
    Pretrained("tiny", 4, IMAGENET, checkpoint=Checkpoint(key="model", prefix="net.", unused=("head.",))),
]
PIXELS = {"render": 20, "crop": 16, "layers": 2, "filters": 4, "features": 6}
ENDINGS = (".pth", ".safetensors")


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """By the encoder that takes it, the bytes of a file of rrl's own."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    pixels, vae = PixelCNN(PixelCNN.Config(**PIXELS), 1), VAE(VAE.Config(weights=None, latent=2), cameras=1)
    fixed.save_encoder(folder / "FixedEncoder.file", pixels, pixels.head(torch.Generator()), {"run": "abc"})
    task.save_encoder(
        folder / "VAE.weights", vae, {"env": ENV.facts()}, {"epochs": 3, "seconds": 2.5, "multiply_adds": 1e9}
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def published(rng, path):
    """Writes a file of a publisher's, `path` without its ending; returns what was done, and its path."""
    tensors = {name: t.clone() for name, t in network().state_dict().items()}
    ending, how = rng.choice(ENDINGS), rng.choice(("bytes", "bytes", "tensors", "content"))
    what = "whole"
    if how == "tensors":
        what, tensors = mutants.other_tensor(rng, tensors)
    content = tensors
    if how == "content" and ending == ".pth":
        x = torch.ones(4, 4)
        others = {
            "under a key": {"model": {f"net.{name}": t for name, t in tensors.items()}, "args": 3},
            "within lists": {"model": [[tensors]]},
            "of DataParallel": {f"module.{name}": t for name, t in tensors.items()},
            "numbers as names": dict(enumerate(tensors.values())),
            "sparse": tensors | {"0.weight": x.to_sparse()},
            "quantized": tensors | {"0.weight": torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)},
            "meta": tensors | {"0.weight": x.to("meta")},
            "expanded": tensors | {"0.weight": torch.ones(1).expand(10**9)},
            "a number": 3,
            "None": None,
            "a text": {"model": "x"},
            "nothing": {},
        }
        what = rng.choice(list(others))
        content = others[what]
    if ending == ".pth":
        written = io.BytesIO()
        torch.save(content, written, _use_new_zipfile_serialization=rng.random() < 0.7)
        data = written.getvalue()
    else:
        data = save({name: t.contiguous() for name, t in tensors.items()})
    if how == "bytes":
        what, data = mutants.damaged(rng, data)
    path = path.with_suffix(ending)
    path.write_bytes(data)
    return f"{ending} {what}", path


def own(rng, name, data, path):
    """Writes a file of rrl's own; returns what was done."""
    path.write_bytes(data)
    tensors, values = checkpoint.load_file(path)
    kind = rng.choice(("bytes", "values", "values", "signed tensors"))
    if kind == "bytes":
        what, data = mutants.damaged(rng, data)
    elif kind == "values":
        what, text = mutants.json_text(rng, values)
        data = mutants.signed(tensors, text.encode(errors="replace").decode())
    else:
        what, tensors = mutants.other_tensor(rng, tensors)
        data = mutants.signed(tensors, json.dumps(values | {"checksum": weights.checksum(tensors)}))
    path.write_bytes(data)
    return f"{name} {kind}: {what}"


def asked(setting, path):
    """All that a run asks of an encoder whose setting names the file."""
    name = setting.partition(".")[0]
    config = ginfile.loads(f"{setting} = {str(path)!r}", root=name)
    size = config.frames().size
    config.label()
    encoder = build(config, cameras=1)
    encoder.facts()
    encoder.training_cost()
    list(encoder.mismatches(ENV))
    if size < 100:
        features = encoder(torch.zeros(1, size, size, 3 * config.frames().stack, dtype=torch.uint8))
        assert features.shape == (1, encoder.dim)


def test_undamaged_files_are_read(files, tmp_path):
    for name, data in files.items():
        (tmp_path / "a.safetensors").write_bytes(data)
        asked(name, tmp_path / "a.safetensors")
    torch.save(network().state_dict(), tmp_path / "a.pth")
    weights.load(tmp_path / "a.pth", SOURCES[0], network())


@pytest.mark.parametrize("source", SOURCES, ids=["state dict", "checkpoint"])
@pytest.mark.filterwarnings("ignore")
def test_mutants_of_published_files(tmp_path, source):
    made = {}

    def make(rng):
        what, made["path"] = published(rng, tmp_path / "a")
        return what

    assert not mutants.faults(150, make, lambda: weights.load(made["path"], source, network()))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutants_of_own_files(files, tmp_path):
    path, made = tmp_path / "a.safetensors", {}

    def make(rng):
        made["name"] = name = rng.choice(sorted(files))
        return own(rng, name, files[name], path)

    assert not mutants.faults(150, make, lambda: asked(made["name"], path))
