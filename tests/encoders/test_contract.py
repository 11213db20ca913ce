"""The contract of frozen encoders: what their pictures look like is data, and backends are found by name.

Proved with a plugin: a network with attention, of 96-px pictures, that nothing in rrl knows.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from helpers.measured import lasting
from helpers.stores import prepared
from plugins.encoder96 import PICTURE, Attention96
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from rrl.cli import app
from rrl.config import ginfile
from rrl.config.grammar import ConfigError
from rrl.encoders import VAE, MobileNetV2, PixelCNN, ResNet, State, Timm, backends
from rrl.encoders.backends import pytorch as torch_backend
from rrl.encoders.backends.openvino import parity
from rrl.encoders.base import Inference
from rrl.encoders.input import Input
from rrl.envs.base import FrameRequest
from rrl.registry import UserError
from rrl.report import groups
from rrl.run import placement
from rrl.store import results

TESTS = Path(__file__).resolve().parent.parent
RUN = """
include 'method/rrl.gin'
include 'env/adroit_door.gin'
Experiment.encoder = @Attention96()
Experiment.evaluators = (@SuccessRate(),)
Experiment.iterations = 2
Experiment.num_envs = 2
Experiment.workers = 0
Experiment.threads = 1
Adroit.look = 'fast'
Adroit.horizon = 10
SuccessRate.episodes = 2
DemoSet.episodes = 1
DAPG.trajectories = 2
DAPG.bc_epochs = 1
DAPG.policy_hidden = (8,)
DAPG.value_batch = 8
"""


def pictures(n, cameras=1, side=96, seed=0):
    """Smooth random pictures, uint8 [n, side, side, 3 * cameras]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3 * cameras, 5, 5, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1) * 255
    return fine.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def encoder():
    return Attention96(Attention96.Config(seed=3), cameras=2)


@pytest.fixture(scope="module")
def vae():
    return VAE(VAE.Config(weights=None, size=96, latent=32, seed=3), cameras=2)


# ---- the network's own pictures


def test_the_network_sees_what_its_weights_ask_for(encoder):
    frames = pictures(3, cameras=2)
    mean, std = torch.tensor(PICTURE.mean).double(), torch.tensor(PICTURE.std).double()
    normalised = ((frames.double().view(3, 96, 96, 2, 3) / 255 - mean) / std).permute(3, 0, 4, 1, 2).float()
    expected = torch.cat([encoder.network(camera) for camera in normalised], dim=1)
    torch.testing.assert_close(encoder(frames), expected, rtol=1e-4, atol=1e-5)
    assert encoder.config.frames() == FrameRequest(96, 96)
    with pytest.raises(ValueError, match=r"uint8 \[N, 96, 96, 6\], got torch.uint8 \[1, 224, 224, 6\]"):
        encoder(pictures(1, cameras=2, side=224))


def test_channels_may_come_last():
    picture = Input(8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), crop_from=10, layout="NHWC")
    frames = pictures(2, side=8)
    expected = (frames / 255 - torch.tensor(picture.mean)) / torch.tensor(picture.std)
    torch.testing.assert_close(picture.normalised(frames, *picture.affine()), expected, rtol=1e-5, atol=1e-5)
    assert picture.frames() == FrameRequest(8, 10)
    for name in ["torch", *(["openvino"] if not backends.get("openvino").missing() else [])]:
        features = backends.encode(nn.Flatten(), picture, Inference(name), 0)(frames)
        torch.testing.assert_close(features, expected.flatten(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("which", ["encoder", "vae"])
@pytest.mark.parametrize(("name", "precision"), [(b.name, p) for b in backends.registered() for p in b.precisions])
def test_every_backend_and_precision_computes_it(which, name, precision, request):
    encoder = request.getfixturevalue(which)
    if missing := backends.get(name).missing(precision):
        pytest.skip(f"needs {', '.join(missing)}")
    frames = pictures(9, cameras=2, seed=1)
    calibration = pictures(8, cameras=2, seed=2).numpy() if precision == "int8" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # bf16 may be emulated
        encode = encoder.inference(Inference(name, precision, calibration=calibration, batch=4))
    most = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.15}[precision]
    _, least, error = parity(encode(frames).numpy(), encoder(frames).numpy())
    assert least > 0.99 and error < most
    if (name, precision) == ("torch", "bf16"):
        assert error > 1e-4, "it is float32"
    assert torch.equal(encode(frames), encode(frames))
    neighbours = (encode(frames)[:1] - encode(frames[:1])).norm() / encode(frames[:1]).norm()
    assert neighbours < most / 10, "neighbours don't matter, but for rounding"


def test_bf16_lowers_linear_layers_and_spares_the_delicate(encoder):
    network = torch_backend.in_bf16(torch_backend.fused(encoder.network), 1, "cpu")
    types = {name: module.weight.dtype for name, module in network.named_modules() if hasattr(module, "weight")}
    assert types["network.patches.0"] == torch.float32
    linear = [kind for name, kind in types.items() if "linear" in name]
    assert linear == [torch.bfloat16] * 2
    features = network(torch.randn(2, 3, 96, 96))
    assert torch.isfinite(features).all()


def test_the_delicate_must_be_separable_for_openvino(encoder, monkeypatch):
    pytest.importorskip("openvino", reason="pip install 'rrl[cpu]'")
    monkeypatch.setattr(Attention96, "delicate", 2)
    with warnings.catch_warnings(), pytest.raises(UserError, match=r"first 2 layers .* Choose backend 'torch'"):
        warnings.simplefilter("ignore", UserWarning)
        encoder.inference(Inference("openvino", "bf16"))


class Antialiased(nn.Module):
    """[N, 3, 8, 8] -> [N, 48], by what OpenVINO has no rule for."""

    def forward(self, x):
        return nn.functional.interpolate(x, 4, mode="bicubic", antialias=True).flatten(1)


def test_what_openvino_cannot_take_is_told_with_the_way_out():
    pytest.importorskip("openvino", reason="pip install 'rrl[cpu]'")
    picture = Input(8, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UserError, match=r"OpenVINO can't take this network: .*bicubic.*\n  set backend 'torch'"):
        backends.encode(Antialiased(), picture, Inference("openvino"), 0)


class Branching(nn.Module):
    """Batch norms in a forward that torch.fx can't trace."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x):
        return self.layers(x).mean((2, 3)) * (2 if x.mean() > -99 else 1)


def test_what_cannot_be_fused_is_computed_plainly_and_said():
    network = Branching().eval()
    with pytest.warns(UserWarning, match="batch norms aren't folded") as caught:
        plain = torch_backend.fused(network)
    assert len(caught) == 1 and plain is not network
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(plain(x), network(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch_backend.fused(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))  # has none: nothing to be said


def test_weights_of_a_file_and_other_pictures_are_another_identity(encoder, tmp_path, monkeypatch):
    path = tmp_path / "own.safetensors"
    save_file(encoder.network.state_dict(), path)
    own = Attention96(Attention96.Config(weights=str(path)), cameras=2)
    frames = pictures(2, cameras=2)
    assert torch.equal(own(frames), encoder(frames)) and own.trained
    assert own.facts()["weights"].startswith("file:") and own.config.label() == "Attention96"
    other = Attention96.pretrained[0].__class__("attention96", 32, Input(96, PICTURE.std, PICTURE.mean))
    monkeypatch.setattr(Attention96, "pretrained", (other,))
    again = Attention96(Attention96.Config(weights=str(path)), cameras=2)
    assert again.facts()["weights"] == own.facts()["weights"] and again.facts() != own.facts()
    with pytest.raises(UserError, match="attention96 has no published weights"):  # it has no published weights
        Attention96(Attention96.Config(weights="imagenet"), cameras=1)


# ---- backends by name


@pytest.mark.parametrize("encoder_class", [ResNet, MobileNetV2, VAE, Timm, PixelCNN, State, Attention96])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("installed", [True, False])
def test_auto_takes_openvino_where_it_can(encoder_class, device, installed, monkeypatch):
    for name in ("openvino", "nncf"):
        monkeypatch.setitem(sys.modules, name, sys if installed else None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: sys.modules.get(name))
    frozen = encoder_class not in (PixelCNN, State)
    expected = "openvino" if frozen and device == "cpu" and installed else "torch"
    for precision in ("fp32", "bf16", *(["int8"] if frozen and device == "cpu" and installed else [])):
        assert backends.choose(encoder_class.backends, device, precision) == expected


class Doubling(backends.Backend):
    """Twice the plain features."""

    name, devices, precisions, preference = "json", ("cpu",), ("fp32",), 9

    def encode(self, network, picture, how, delicate):
        return lambda pictures: 2 * network(picture.normalised(pictures, *picture.affine()))


def test_a_registered_backend_is_checked_chosen_and_used(encoder, monkeypatch):
    """Its name is also the package that it needs: `json` is there, if not as a distribution."""
    with pytest.raises(ConfigError) as refused:
        ginfile.loads(RUN + "Experiment.backend = 'json'", "x.gin")
    (problem,) = refused.value.problems
    assert "Experiment.backend must be 'auto', 'torch', 'openvino'; got 'json'" in str(problem)
    assert f"x.gin:{RUN.count(chr(10)) + 1}" in str(problem)
    monkeypatch.setitem(backends.base._backends, "json", Doubling())
    config = ginfile.loads(RUN + "Experiment.device = 'cpu'", "x.gin")
    assert placement.resolve(config).backend == "json"
    assert placement.resolve(config.model_copy(update={"precision": "bf16"})).backend != "json"
    frames = pictures(2, cameras=2)
    torch.testing.assert_close(encoder.inference(Inference("json"))(frames), 2 * encoder(frames))
    with pytest.raises(UserError, match=r"precision 'bf16' needs backend 'torch' on cpu or cuda"):
        encoder.inference(Inference("json", "bf16"))
    with pytest.raises(UserError, match=r"no backend is named 'onnx'; there are 'torch', 'openvino', 'json'"):
        encoder.inference(Inference("onnx"))


def test_a_backends_name_is_taken_once():
    class Mine(Doubling):
        name = "torch"

    with pytest.raises(ValueError, match="backend 'torch' is already registered by rrl"):
        backends.register(Mine)
    assert isinstance(backends.get("torch"), backends.Torch)


# ---- a run of the plugin, found by its entry point as a user's would be


@pytest.fixture(scope="module")
def rrl(tmp_path_factory):
    """`rrl(command, ...)` -> what it prints, in a folder with the file `run.gin` and the plugin installed."""
    root = prepared(tmp_path_factory.mktemp("plugin"))
    (root / "run.gin").write_text(RUN)
    package = root / "site" / "encoder96-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: encoder96\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[rrl.components]\nencoder96 = plugins.encoder96\n")
    paths = [str(root / "site"), str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "RRL_CACHE": str(root / "cache")}

    def call(*arguments):
        command = [sys.executable, "-m", "rrl.cli", *arguments]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call.root = root
    return call


def test_a_plugin_is_listed_described_and_checked(rrl, monkeypatch):
    assert "Attention96" in rrl("list")
    monkeypatch.chdir(rrl.root)  # once it is found, this process does as well
    assert "32 features of 96-px pictures" in CliRunner().invoke(app, ["describe", "Attention96"]).output
    assert "@Attention96()" in CliRunner().invoke(app, ["check", "run.gin"]).output


def test_a_plugin_runs_is_cached_and_told_apart_in_reports(rrl, monkeypatch):
    rrl("run", "run.gin")
    monkeypatch.chdir(rrl.root)
    monkeypatch.setenv("RRL_CACHE", str(rrl.root / "cache"))
    done = CliRunner().invoke(app, ["run", "run.gin"])
    assert done.exit_code == 0, done.output
    first, second = results.find([], rrl.root / "runs")
    (cached,) = (rrl.root / "cache").rglob("*.npz")  # one replay for both
    assert cached.stat().st_mtime < (first.folder / "metrics.jsonl").stat().st_mtime
    for run in (first, second):
        assert run.tags["encoder"] == "Attention96 (UNTRAINED)" and "size=96" in run.tags["encoder.input"]
    rows = [
        [lasting(json.loads(line)["metrics"]) for line in lines]
        for lines in ((run.folder / "metrics.jsonl").read_text().splitlines() for run in (first, second))
    ]
    assert rows[0] == rows[1] and rows[0][-1]["iteration"] == 2
    (group,) = groups.collect([first, second]).groups
    assert group.label.startswith("door · Attention96 (UNTRAINED) · DAPG")


@pytest.mark.parametrize("pretrained", [(), Attention96.pretrained[0]])
def test_an_encoder_without_its_networks_is_told(monkeypatch, pretrained):
    monkeypatch.setattr(Attention96, "pretrained", pretrained)
    with pytest.raises(TypeError, match=r"Attention96.pretrained must be a tuple of one Pretrained or more"):
        Attention96.Config().frames()


def test_a_network_of_another_width_is_told(encoder, monkeypatch):
    monkeypatch.setattr(encoder, "network", nn.Sequential(nn.Flatten(), nn.LazyLinear(5)))
    with pytest.raises(UserError, match=r"Attention96.make_network gives 5 features per picture, .* says 32"):
        encoder(pictures(1, cameras=2))
