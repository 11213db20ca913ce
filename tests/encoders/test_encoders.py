"""Encoders: the contract of every registered one, torchvision as golden reference."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from helpers.encoders import FROZEN, NETWORKS, needs_wheel, seeded, untrained
from pydantic import ValidationError
from safetensors.torch import save_file
from torchvision.models import get_model, get_model_weights

from rrl import registry
from rrl.bench.measure import reference
from rrl.encoders import MobileNetV2, ResNet, State, backends, weights
from rrl.encoders.backends.openvino import parity
from rrl.encoders.base import Inference
from rrl.encoders.frozen import FrozenEncoder
from rrl.encoders.input import Input
from rrl.encoders.settings.mobilenet import WHEEL
from rrl.encoders.weights import Pretrained
from rrl.envs.base import FrameRequest

pytestmark = pytest.mark.usefixtures("empty_hub", "shallow")


def pictures(n, side=224, cameras=1, seed=0):
    """Smooth random pictures, uint8 [n, side, side, 3 * cameras]: white noise would average out."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3 * cameras, 9, 9, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1) * 255
    return fine.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def reference_features(name, network, pictures_256):
    """What torchvision's own network and transforms give to its last linear layer: [N, features]."""
    last = network.fc if hasattr(network, "fc") else network.classifier
    seen = []
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    transforms = get_model_weights(name)["IMAGENET1K_V1"].transforms()
    with torch.no_grad():
        network(transforms(pictures_256.permute(0, 3, 1, 2)))
    return seen[0]


def difference(a, b):
    """Largest relative error of a row."""
    return ((a - b).norm(dim=1) / b.norm(dim=1)).max().item()


def config(name, path):
    cls = registry.implementation(registry.get(weights.sources()[name][1]))
    depth = {"depth": int(name.removeprefix("resnet"))} if cls is ResNet else {}
    return cls.Config(weights=str(path), **depth)


# ---- the contract of every registered encoder


@pytest.fixture(scope="module", params=registry.names("encoder"))
def encoder_class(request):
    return registry.implementation(registry.get(request.param))


@pytest.fixture(scope="module")
def make(encoder_class, tmp_path_factory):
    """Untrained encoders by number of cameras."""
    made, folder = {}, tmp_path_factory.mktemp("encoders")

    def make(cameras):
        if cameras not in made:
            made[cameras] = untrained(encoder_class, cameras, folder)
        return made[cameras]

    return make


def frames_for(encoder, n, seed=0):
    request = encoder.config.frames()
    side, stack = (request.size, request.stack) if request else (8, 1)
    return pictures(n, side, encoder.cameras * stack, seed)


def test_every_field_is_documented_and_configs_are_immutable(encoder_class, make):
    for name, field in encoder_class.Config.model_fields.items():
        assert field.description, f"{encoder_class.__name__}.{name} needs a docstring"
        with pytest.raises(ValidationError):
            setattr(make(1).config, name, None)


def test_frames_request_is_pure(make):
    request = make(1).config.frames()
    assert request == make(1).config.frames()
    assert request is None or isinstance(request, FrameRequest)


@pytest.mark.parametrize("cameras", [1, 3])
def test_uint8_in_float32_features_out(make, cameras):
    encoder = make(cameras)
    frames = frames_for(encoder, 2)
    features = encoder(frames)
    assert features.shape == (2, encoder.dim) and features.dtype == torch.float32
    assert torch.isfinite(features).all()
    if encoder.dim:
        assert difference(features[:1], features[1:]) > 1e-3  # the picture matters


def test_rows_do_not_depend_on_the_batch(make):
    encoder = make(1)
    fast = encoder.inference(Inference())
    for encode, n in ((encoder, 2), (fast, 5)):  # 5: more than `inference` encodes at a time
        frames = frames_for(encoder, n)
        together = encode(frames)
        alone = torch.cat([encode(frames[i : i + 1]) for i in range(n)])
        assert together.shape == alone.shape == (n, encoder.dim)
        if encoder.dim:
            assert difference(together, alone) < 1e-5


def test_inference_is_forward_and_repeats(make):
    encoder = make(3)
    frames = frames_for(encoder, 2)
    fast = encoder.inference(Inference())
    first, second = fast(frames), fast(frames)
    assert first.shape == (2, encoder.dim) and first.dtype == torch.float32
    assert torch.equal(first, second)
    if encoder.dim:
        assert difference(first, encoder(frames).detach()) < 1e-4


@pytest.mark.parametrize("frozen", [name for name in FROZEN if name not in ("R3M", "VIP")])  # networks of ResNet's
@pytest.mark.parametrize(("name", "precision"), [("torch", "bf16"), ("openvino", "fp32")])
def test_any_backend_computes_a_frozen_network(frozen, name, precision, tmp_path):
    """int8 takes long to make: a plugin and timm's stand for it in other files."""
    encoder = untrained(frozen, 1, tmp_path)
    if missing := backends.get(name).missing(precision):
        pytest.skip(f"needs {', '.join(missing)}")
    frames = frames_for(encoder, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # bf16 may be emulated
        encode = encoder.inference(Inference(name, precision))
    error = parity(encode(frames).numpy(), encoder(frames).numpy())[2]
    assert error < 1e-4 if precision == "fp32" else 1e-3 < error < 0.2


def test_learns_agrees_with_gradients_and_modes(make):
    encoder = make(1)
    encoder.train()
    features = encoder(frames_for(encoder, 1))
    assert features.requires_grad == encoder.learns
    if list(encoder.parameters()) and not encoder.learns:
        assert not any(module.training for module in encoder.modules())


def test_state_dict_round_trip(encoder_class, make, tmp_path):
    encoder, other = make(1), untrained(encoder_class, 1, tmp_path, seed=5)
    frames = frames_for(encoder, 1)
    assert not encoder.dim or not torch.equal(other(frames), encoder(frames))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(frames), encoder(frames))


def test_building_draws_nothing_from_the_global_generator(encoder_class, tmp_path):
    before = torch.get_rng_state()
    untrained(encoder_class, 1, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_facts_are_text(make):
    assert all(isinstance(k, str) and isinstance(v, str) and v for k, v in make(1).facts().items())
    assert make(1).facts()["weights"]


# ---- golden: torchvision itself


@pytest.mark.parametrize(
    ("name", "container"),
    [(name, ".pth") for name in NETWORKS] + [("mobilenet_v2", ".safetensors")],
)
def test_equal_to_torchvision(name, container, tmp_path):
    network = seeded(name)
    path = tmp_path / f"own{container}"
    (save_file if container == ".safetensors" else torch.save)(network.state_dict(), path)
    encoder = registry.build(config(name, path), cameras=1)
    whole = pictures(2, 256)
    crop = whole[:, 16:240, 16:240]
    reference = reference_features(name, network, whole)
    assert encoder.dim == reference.shape[1]
    assert difference(encoder(crop), reference) < 1e-4
    assert difference(encoder.inference(Inference())(crop), reference) < 1e-4


@needs_wheel
def test_wheel_weights_equal_torchvision():
    """The wheel's tensors stand in torchvision's order: pairing them in order doesn't use our renaming."""
    wheel = torch.load(weights.wheel_file(WHEEL.file), weights_only=True)
    network = get_model("mobilenet_v2").eval()
    names = [name for name in network.state_dict() if not name.startswith("classifier")]
    network.load_state_dict(dict(zip(names, wheel.values(), strict=True)), strict=False)
    encoder = MobileNetV2(MobileNetV2.Config(), cameras=1)
    whole = pictures(2, 256)
    reference = reference_features("mobilenet_v2", network, whole)
    assert difference(encoder(whole[:, 16:240, 16:240]), reference) < 1e-4
    assert encoder.trained and encoder.facts() == {"weights": "imagenet-deepsort:aa8fe71c891c"}
    assert encoder.config.label() == "MobileNetV2 (imagenet-deepsort)"


def bf16_inference(encoder):
    """The bf16 function; it warns where the CPU only emulates bf16."""
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with nullcontext() if native else pytest.warns(UserWarning, match="emulates bf16"):
        return encoder.inference(Inference(precision="bf16"))


def test_bf16_of_a_resnet_is_within_two_percent(tmp_path):
    torch.save(seeded("resnet18").state_dict(), tmp_path / "r18.pth")
    encoder = ResNet(ResNet.Config(depth=18, weights=str(tmp_path / "r18.pth")), cameras=1)
    frames = pictures(2)
    assert 1e-5 < difference(bf16_inference(encoder)(frames), encoder(frames)) < 0.02


@needs_wheel
def test_bf16_of_mobilenet_spares_its_delicate_layers():
    """Its first blocks amplify bf16's rounding, as torch's own autocast shows: they stay in float32."""
    encoder = MobileNetV2(MobileNetV2.Config(), cameras=1)
    frames = pictures(2)
    reference = encoder(frames)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        autocast = encoder(frames).float()
    error = difference(bf16_inference(encoder)(frames), reference)
    assert 1e-4 < error < 0.6 * difference(autocast, reference)
    assert difference(encoder.inference(Inference())(frames), reference) < 1e-4


def test_cameras_are_encoded_one_by_one_in_order():
    three = ResNet(ResNet.Config(depth=18, weights=None), cameras=3)
    one = ResNet(ResNet.Config(depth=18, weights=None), cameras=1)
    frames = pictures(2, cameras=3)
    alone = torch.cat([one(frames[..., 3 * c : 3 * c + 3]) for c in range(3)], dim=1)
    torch.testing.assert_close(three(frames), alone, rtol=1e-4, atol=1e-4)
    assert three.feature_name(512 + 7) == "feature 7 of ResNet of camera 2"
    assert one.feature_name(7) == "feature 7 of ResNet"


@pytest.mark.parametrize(
    "frames",
    [pictures(1, 256), pictures(1, cameras=2), pictures(1).float(), pictures(1)[0]],
    ids=["size", "cameras", "dtype", "no batch"],
)
def test_other_pictures_are_errors(frames):
    encoder = MobileNetV2(MobileNetV2.Config(weights=None), cameras=1)
    for encode in (encoder, encoder.inference(Inference())):
        with pytest.raises(ValueError, match=r"uint8 \[N, 224, 224, 3\]"):
            encode(frames)


# ---- untrained, and what sees nothing


def test_untrained_is_explicit_and_reproducible():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = ResNet(ResNet.Config(depth=18, weights=None, seed=1), cameras=1)
    assert torch.equal(torch.get_rng_state(), before), "building an encoder must not draw from the run's generator"
    torch.manual_seed(8)
    again = ResNet(ResNet.Config(depth=18, weights=None, seed=1), cameras=1)
    other = ResNet(ResNet.Config(depth=18, weights=None, seed=2), cameras=1)
    assert not first.trained and first.facts() == again.facts()
    assert first.facts()["weights"].startswith("untrained:seed1:")
    assert first.facts()["weights"].split(":")[2] != other.facts()["weights"].split(":")[2]


def test_state_encodes_nothing():
    state = State(State.Config(), cameras=0)
    assert state.config.frames() is None and state.dim == 0 and not state.learns
    assert state(torch.zeros(4, 1)).shape == (4, 0)
    assert state.inference(Inference())(torch.zeros(4, 1)).shape == (4, 0)


class Means(FrozenEncoder):
    """Mean colours of four quarters: nothing is learnt, so there are no weights."""

    pretrained = (Pretrained("means", 12, Input(64, (0.5,) * 3, (0.5,) * 3), learnt=False),)

    class Config(FrozenEncoder.Config):
        """Settings of `Means`."""

        weights: None = None

    def make_network(self):
        """[N, 3, 64, 64] -> [N, 12]."""
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())


def test_an_encoder_without_weights_is_not_untrained(monkeypatch):
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    registry.register(Means)
    encoder = Means(Means.Config(), cameras=2)
    frames = pictures(2, 64, cameras=2)
    assert torch.equal(encoder(frames), encoder.inference(Inference())(frames)) and encoder.dim == 24
    assert encoder.trained and Means.Config().label() == "Means"
    assert encoder.facts()["weights"].startswith("none:")
    assert reference("reference_encode").encode(encoder.network, frames[..., :3].numpy()).shape == (2, 12)
    with pytest.raises(ValidationError):
        Means.Config(weights="imagenet")
    assert [row for row in weights.rows() if row.encoder == "Means"] == []
