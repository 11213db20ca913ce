"""VAE: architecture and loss against independent forms, its file's header, and what is refused."""

import json
import math

import pytest
import torch
from helpers.pixels import only_problem
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from rrl.config import ginfile
from rrl.encoders import VAE
from rrl.encoders.base import Inference
from rrl.encoders.task import save_encoder
from rrl.encoders.weights import WeightsError
from rrl.envs.base import FrameRequest, find_task
from rrl.registry import UserError, build
from rrl.store import checkpoint

DOOR = {"env": {"env": "adroit_door", "protocol": "paper", "look": "fast", "cameras": "top"}, "pictures": 400}
EPS = 1e-5


def moved(module, seed=0):
    """The module with weights, batch norms' statistics too, as training may leave them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in module.state_dict().items():
            if name.endswith("running_var"):
                t.copy_(0.5 + torch.rand(t.shape, generator=generator))
            elif t.is_floating_point():
                t.add_(0.05 * torch.randn(t.shape, generator=generator))
    return module


def pretrained(path, data=DOOR, seed=1, **settings):
    """A written file, and the encoder in it."""
    encoder = VAE(VAE.Config(weights=None, **settings), cameras=1)
    moved(encoder.network, seed)
    save_encoder(path, encoder, data, {"epochs": 3})
    return encoder


def block(x, t, name, convolve):
    """A convolution, batch norm in evaluation, LeakyReLU, written out."""
    x = convolve(x, t[f"{name}.0.weight"], t[f"{name}.0.bias"])
    mean, var = (t[f"{name}.1.running_{what}"].view(1, -1, 1, 1) for what in ("mean", "var"))
    scale, shift = (t[f"{name}.1.{what}"].view(1, -1, 1, 1) for what in ("weight", "bias"))
    x = (x - mean) / (var + EPS).sqrt() * scale + shift
    return torch.where(x > 0, x, 0.01 * x)


def encode(x, t, prefix=""):
    for i in range(5):
        x = block(x, t, f"{prefix}layers.{i}", lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1))
    return x.flatten(1) @ t[f"{prefix}mean.weight"].T + t[f"{prefix}mean.bias"]


def decode(z, t):
    x = (z @ t["widen.weight"].T + t["widen.bias"]).reshape(-1, 512, 2, 2)
    for i in range(5):
        x = block(
            x, t, f"layers.{i}", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1)
        )
    return torch.tanh(F.conv2d(x, t["layers.5.weight"], t["layers.5.bias"], padding=1))


def frames(count=3, cameras=1, side=64):
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, side, side, 3 * cameras), dtype=torch.uint8, generator=generator)


def test_the_encoder_is_the_published_one(tmp_path):
    """Each camera by itself, whole views of 64 px in [-1, 1], five halving convolutions, the latent's mean."""
    made = pretrained(tmp_path / "a.safetensors")
    assert [tuple(t.shape) for n, t in made.network.named_parameters() if t.ndim > 1] == [
        (32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3), (512, 256, 3, 3), (512, 2048),
    ]  # fmt: skip
    encoder = VAE(VAE.Config(weights=str(tmp_path / "a.safetensors")), cameras=2)
    assert (encoder.dim, encoder.config.frames()) == (1024, FrameRequest(64, 64))
    tensors, seen = load_file(tmp_path / "a.safetensors"), frames(cameras=2)
    cameras = (seen.float() / 127.5 - 1).permute(0, 3, 1, 2).split(3, dim=1)
    expected = torch.cat([encode(x, tensors) for x in cameras], dim=1)
    torch.testing.assert_close(encoder(seen), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoder.inference(Inference())(seen), expected, rtol=1e-4, atol=1e-4)
    rough = encoder.inference(Inference(precision="bf16"))(seen)
    assert 1e-4 < float((rough - expected).norm() / expected.norm()) < 0.03


def test_the_decoder_is_the_published_one():
    learner = moved(VAE(VAE.Config(weights=None), cameras=1).make_learner()).eval()
    shapes = [tuple(m.weight.shape) for m in learner.layers.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    assert shapes == [(512, 256, 3, 3), (256, 128, 3, 3), (128, 64, 3, 3), (64, 32, 3, 3), (32, 32, 3, 3)]
    x = frames(2).permute(0, 3, 1, 2).float() / 127.5 - 1
    tensors = learner.state_dict()
    expected = decode(encode(x, tensors, "network."), tensors)
    torch.testing.assert_close(learner.rebuilt(x), expected, rtol=1e-4, atol=1e-4)
    assert learner.rebuilt(x).shape == x.shape


def test_the_loss_is_the_closed_form():
    """The divergence of Gaussians as `torch.distributions` has it, and a plain mean of squares, in float64."""
    learner = (
        moved(VAE(VAE.Config(weights=None, latent=7), cameras=1).make_learner()).double().eval().requires_grad_(False)
    )
    x = (frames(3).permute(0, 3, 1, 2).double() / 127.5) - 1
    seen = learner.network.layers(x).flatten(1)
    mean, log_variance = learner.network.mean(seen).float(), learner.log_variance(seen).float()
    posterior = torch.distributions.Normal(mean.double(), (0.5 * log_variance.double()).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    learner.float()
    losses = learner.losses(x.float(), 0.25, None)
    rebuilt = learner.rebuilt(x.float())
    reconstruction = sum((a - b) ** 2 for a, b in zip(rebuilt.flatten().tolist(), x.flatten().tolist(), strict=True))
    assert math.isclose(float(losses["kl"]), float(kl), rel_tol=1e-4)
    assert math.isclose(float(losses["reconstruction"]), reconstruction / x.numel(), rel_tol=1e-4)
    assert math.isclose(float(losses["loss"]), reconstruction / x.numel() + 0.25 * float(kl), rel_tol=1e-4)


def test_what_is_drawn_comes_from_the_generator():
    learner = moved(VAE(VAE.Config(weights=None, latent=7), cameras=1).make_learner()).eval()
    x = frames(2).permute(0, 3, 1, 2).float() / 127.5 - 1
    first, again, other = (
        float(learner.losses(x, 1.0, torch.Generator().manual_seed(seed))["loss"].detach()) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_the_file_decides_size_and_latent(tmp_path):
    path = tmp_path / "small.safetensors"
    made = pretrained(path, latent=5, size=96)
    config = VAE.Config(weights=str(path))
    encoder = VAE(config, cameras=3)
    assert (encoder.dim, config.frames()) == (15, FrameRequest(96, 96))
    assert config.label() == "VAE (of adroit_door)" and encoder.trained
    assert VAE.Config(weights=None).label() == "VAE (UNTRAINED)"
    assert torch.equal(encoder(frames(side=96, cameras=3))[:, :5], made(frames(side=96, cameras=3)[..., :3]))
    facts = encoder.facts()
    assert facts["task"] == "adroit_door" and facts["weights"].startswith("file:")
    assert "size=96" in facts["input"]
    assert VAE.Config(weights=str(path), latent=5) is not None
    for field, value, held in (("latent", 512, 5), ("size", 64, 96)):
        told = only_problem(f"Experiment.encoder = @VAE()\nVAE.weights = {str(path)!r}\nVAE.{field} = {value}\n")
        assert f"x.gin:3: VAE.{field} is {value}, but the network in {path} has {held}" in told
        assert f"leave VAE.{field} out" in told


def test_other_pictures_than_in_training_are_told(tmp_path):
    path = tmp_path / "a.safetensors"
    pretrained(path, latent=5)
    encoder = VAE(VAE.Config(weights=str(path)), cameras=1)
    assert list(encoder.mismatches(build(find_task("adroit_door", look="fast")))) == []
    (other,) = encoder.mismatches(build(find_task("adroit_pen")))
    assert other == ("the encoder was trained on pictures of adroit_door, this is adroit_pen", True)
    seen = list(encoder.mismatches(build(find_task("adroit_door", look="default", cameras=("vil_camera",)))))
    assert [serious for _, serious in seen] == [False, False]
    assert "look fast, here it is default" in seen[0].text and "cameras top" in seen[1].text
    assert list(VAE(VAE.Config(weights=None), 1).mismatches(build(find_task("adroit_pen")))) == []


def test_files_that_hold_no_vae_are_refused(tmp_path):
    good = tmp_path / "good.safetensors"
    pretrained(good, latent=5)
    tensors, values = checkpoint.load_file(good)
    cut, foreign, other, odd = (tmp_path / f"{name}.safetensors" for name in ("cut", "foreign", "other", "odd"))
    cut.write_bytes(good.read_bytes()[:-100])
    save_file(tensors, foreign)
    checkpoint.save_file(other, tensors, {"config": "x"})
    checkpoint.save_file(odd, tensors, {**values, "encoder": "Elsewhere"})
    for path, text in (
        (cut, "not a whole safetensors file"),
        (foreign, "not one that rrl wrote"),
        (other, "not a pretrained encoder: it doesn't say encoder, settings, data, training"),
        (odd, "holds a Elsewhere"),
        (tmp_path / "none.safetensors", "there is no file"),
    ):
        with pytest.raises((WeightsError, ValueError), match=text):
            VAE.Config(weights=str(path))
    told = only_problem("Experiment.encoder = @VAE()\nVAE.weights = 'none.safetensors'\n")
    assert "make it: rrl pretrain FILE (shipped: pretrain/vae_adroit_door, " in told
    told = only_problem("Experiment.encoder = @VAE()\n")
    assert "VAE needs weights" in told


@pytest.mark.parametrize(
    "damage",
    [
        {"settings": [1]},
        {"settings": None},
        {"data": None},
        {"data": {}},
        {"data": {"env": "x"}},
        {"data": {"env": {}}},
    ],
)
def test_a_damaged_header_is_told(damage, tmp_path):
    file = tmp_path / "vae.safetensors"
    pretrained(file, latent=5)
    tensors, values = checkpoint.load_file(file)
    checkpoint.save_file(file, tensors, {**values, **damage})
    with pytest.raises((WeightsError, ValueError), match="' has a damaged header"):
        VAE.Config(weights=str(file))


@pytest.mark.parametrize("text", [None, "5", "{", '"x"'])
def test_a_header_that_is_no_json_object_is_told(text, tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, file, {"format": "rrl"} | ({} if text is None else {"values": text}))
    with pytest.raises(UserError, match="has a damaged header"):
        checkpoint.load_values(file)


def test_a_header_that_its_tensors_do_not_fit_and_nan_are_refused(tmp_path):
    good, wrong, nan = (tmp_path / f"{name}.safetensors" for name in ("good", "wrong", "nan"))
    pretrained(good, latent=5)
    tensors, values = checkpoint.load_file(good)
    checkpoint.save_file(wrong, tensors, {**values, "settings": {"latent": 5, "size": 128}})
    with pytest.raises(WeightsError, match=r"mean.weight is \(5, 2048\), must be \(5, 8192\)"):
        VAE(VAE.Config(weights=str(wrong)), cameras=1)
    for size in (60, "large", None):
        checkpoint.save_file(wrong, tensors, {**values, "settings": {"latent": 5, "size": size}})
        with pytest.raises((WeightsError, ValueError), match=r"holds a VAE that this version can't make: .*size"):
            VAE.Config(weights=str(wrong))
    broken = {**tensors, "mean.bias": torch.full((5,), math.nan)}
    metadata = {"format": "rrl", "values": json.dumps(values)}
    save_file(broken, nan, metadata)
    with pytest.raises(UserError, match=r"mean.bias holds nan \(5 of 5 numbers\)"):
        VAE(VAE.Config(weights=str(nan)), cameras=1)


def test_tensors_that_were_changed_since_are_refused(tmp_path):
    """The header would tell of a training that these never had."""
    pretrained(file := tmp_path / "a.safetensors", latent=4, size=32)
    tensors, values = checkpoint.load_file(file)
    tensors["mean.bias"] += 1
    checkpoint.save_file(file, tensors, values)
    with pytest.raises(WeightsError) as error:
        VAE(VAE.Config(weights=str(file)), cameras=1)
    assert f"{file} was changed after its training: its tensors have the checksum" in str(error.value)
    assert f"its header says {values.pop('checksum')}\n  make it: rrl pretrain FILE" in str(error.value)
    checkpoint.save_file(file, tensors, values)  # a header that states none
    assert VAE(VAE.Config(weights=str(file)), cameras=1).dim == 4


def test_a_pretrained_file_works_in_gin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    pretrained(tmp_path / "runs" / "vae_adroit_door.safetensors", latent=5)
    config = ginfile.load("adroit_door_vae")
    assert config.encoder.frames() == FrameRequest(64, 64)  # type: ignore[attr-defined]
    assert ginfile.loads(ginfile.dumps(config)) == config
