"""Timm: timm's own networks and transforms as golden reference, names, sizes, pools, weights, what is refused."""

import hashlib
import http.server
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from rrl import cli
from rrl.config import ginfile
from rrl.encoders import Timm, weights
from rrl.encoders.backends.openvino import parity
from rrl.encoders.base import Inference
from rrl.encoders.weights import WeightsError
from rrl.envs.base import FrameRequest

timm = pytest.importorskip("timm", reason="pip install 'rrl[timm]'")
constants = pytest.importorskip("huggingface_hub.constants")
VIT, CNN = "test_vit.r160_in1k", "test_convnext.r160_in1k"
DINO = "vit_small_patch14_dinov2.lvd142m"
RUN = "Experiment.env = @Adroit()\nAdroit.task = 'pen'\nExperiment.agent = @NPG()\nExperiment.iterations = 1\n"


@pytest.fixture(autouse=True)
def nobody_there(tmp_path, monkeypatch):
    """No test sees or fills the developer's caches, or reaches huggingface.co."""
    hub_at(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def hub_at(monkeypatch, address):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def picture(side, seed=0):
    """A smooth random picture, uint8 [1, side, side, 3]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1) * 255
    return fine.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def file_of(model, path, seed=1):
    """A file of all the network's tensors as its publisher would give it, drawn from `seed`."""
    torch.manual_seed(seed)
    tensors = timm.create_model(model).state_dict()
    for name, tensor in tensors.items():
        if "running_var" not in name and tensor.is_floating_point():
            tensor += 0.05 * torch.randn_like(tensor)
    save_file(tensors, path)
    return str(path)


def mistake(settings):
    """The one mistake in a gin file with these settings of Timm, in words."""
    with pytest.raises(ginfile.ConfigError) as error:
        ginfile.loads(f"Experiment.encoder = @Timm()\n{settings}\n{RUN}", "x.gin")
    (problem,) = error.value.problems
    return str(problem)


# ---- golden: timm itself


@pytest.mark.parametrize(
    ("model", "size", "pool"),
    [
        (CNN, None, None),
        ("test_resnet.r160_in1k", None, None),
        ("test_efficientnet.r160_in1k", 96, None),
        (VIT, None, None),
        (VIT, None, "token"),
        (VIT, 96, "avg"),
    ],
)
def test_equal_to_timms_network_and_transform(model, size, pool, tmp_path):
    path = file_of(model, tmp_path / "own.safetensors")
    resized = {"img_size": size} if size and "vit" in model else {}
    theirs = timm.create_model(model, True, pretrained_cfg_overlay={"file": path}, num_classes=0, **resized).eval()
    facts = timm.data.resolve_data_config({"img_size": size} if size else {}, model=theirs)
    encoder = Timm(Timm.Config(model=model, size=size, pool=pool, weights=path), cameras=1)
    asked = encoder.config.frames()
    whole = picture(asked.crop_from)
    edge = (asked.crop_from - asked.size) // 2
    frames = whole[:, edge : edge + asked.size, edge : edge + asked.size].contiguous()
    with torch.no_grad():
        normalised = timm.data.create_transform(**facts)(Image.fromarray(whole[0].numpy()))[None]
        tokens = theirs.forward_features(normalised)
        pooled = {None: lambda: theirs(normalised), "token": lambda: tokens[:, 0], "avg": lambda: tokens[:, 1:].mean(1)}
        reference = pooled[pool]()
    assert encoder.dim == reference.shape[1] and encoder.trained
    for encode in (encoder, encoder.inference(Inference())):
        torch.testing.assert_close(encode(frames), reference, rtol=1e-4, atol=1e-4 * reference.abs().max().item())


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_crop_modes_are_one_for_square_pictures(mode):
    whole = picture(168)
    transform = timm.data.create_transform((3, 160, 160), crop_pct=0.95, crop_mode=mode, mean=(0, 0, 0), std=(1, 1, 1))
    pixels = (255 * transform(Image.fromarray(whole[0].numpy()))).round().to(torch.uint8)
    assert torch.equal(pixels.permute(1, 2, 0), whole[0, 4:164, 4:164])


def test_what_timm_says_of_pictures():
    config = Timm.Config(model=VIT)
    assert config.frames() == FrameRequest(160, 168) and config.source.input.mean == (0.5, 0.5, 0.5)
    assert Timm.Config(model=DINO).frames() == FrameRequest(518, 518)
    assert Timm.Config(model=DINO, size=224).source.input.interpolation == "bicubic"
    assert Timm.Config(model=DINO, size=224).label() == "vit_small_patch14_dinov2.lvd142m 224 px"
    untagged = Timm.Config(model="test_vit", pool="avg", weights=None)
    assert untagged.label() == "test_vit.r160_in1k avg (UNTRAINED)"


@pytest.mark.slow
def test_int8_of_a_transformer_is_usable(tmp_path):
    """Quantised as a network of convolutions is, it would be 44 % off."""
    pytest.importorskip("nncf", reason="pip install 'rrl[cpu]'")
    encoder = Timm(Timm.Config(model=VIT, weights=file_of(VIT, tmp_path / "own.safetensors")), cameras=1)
    frames = torch.cat([picture(160, seed) for seed in range(8)])
    encode = encoder.inference(Inference("openvino", "int8", calibration=frames.numpy()))
    assert 0.01 < parity(encode(frames).numpy(), encoder(frames).numpy())[2] < 0.15


# ---- names, sizes and pools that there are not


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            "Timm.model = 'vit_smal_patch14_dinov2'",
            [r"x.gin:2: ", "knows no network 'vit_smal_patch14_dinov2'", "did you mean vit_small_patch14_dinov2"],
        ),
        ("Timm.model = 'resnet18.a1_in2k'", ["did you mean resnet18.a1_in1k"]),
        ("Timm.model = '?'", ["timm.list_pretrained()"]),
        (f"Timm.model = '{DINO}'\nTimm.size = 230", ["x.gin:3: ", "230 px", "patches of 14 px", "take 224 or 238"]),
        ("Timm.model = 'resnet18'\nTimm.pool = 'token'", ["x.gin:3: ", "resnet18 has no class token"]),
        ("Timm.model = 'test_efficientnet'\nTimm.size = 2000", ["x.gin:3: "]),
        ("Timm.model = 'vit_base_patch16_sapiens2.fb'", ["1024 x 768", "square"]),
        ("Timm.model = 'volo_d5_512'", ["black frame"]),
        ("Timm.model = 'swin_tiny_patch4_window7_224'\nTimm.pool = 'token'", ["no class token"]),
    ],
)
def test_what_there_is_not_is_refused_in_its_place(settings, words):
    text = mistake(settings)
    for word in words:
        assert word in text


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    assert "pip install 'rrl[timm]'" in mistake("Timm.model = 'resnet26'")


# ---- weights


def test_files_that_do_not_fit_are_explained(tmp_path):
    small, other = file_of(VIT, tmp_path / "a.safetensors"), file_of("test_vit2", tmp_path / "b.safetensors")
    for path, model in ((small, "test_vit2"), (other, VIT), (file_of(CNN, tmp_path / "c.safetensors"), VIT)):
        with pytest.raises(WeightsError, match="doesn't hold") as error:
            Timm(Timm.Config(model=model, weights=path), cameras=1)
        text = str(error.value)
        assert "missing: " in text and "more" in text and len(text.splitlines()) < 8


@pytest.mark.parametrize("missing", ["blocks.1.attn.qkv.bias", "norm.weight", "pos_embed"])
def test_one_missing_and_one_unknown_tensor_are_named(tmp_path, missing):
    tensors = timm.create_model(VIT).state_dict()
    tensors["stranger"] = tensors.pop(missing)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=f"missing: {missing}") as error:
        Timm(Timm.Config(model=VIT, weights=str(tmp_path / "x.safetensors")), cameras=1)
    assert "stranger" in str(error.value)


def test_a_file_without_the_classifier_is_as_good_and_sizes_are_told_apart(tmp_path):
    path = file_of(VIT, tmp_path / "own.safetensors")
    whole = Timm(Timm.Config(model=VIT, weights=path), cameras=1)
    save_file(whole.network.state_dict(), tmp_path / "bare.safetensors")
    bare = Timm(Timm.Config(model=VIT, weights=str(tmp_path / "bare.safetensors")), cameras=1)
    assert bare.facts() == whole.facts() and whole.facts()["weights"].startswith("file:")
    other = Timm(Timm.Config(model=VIT, size=96, weights=path), cameras=1)
    assert other.facts()["weights"] != whole.facts()["weights"] and "size=96" in other.facts()["input"]
    assert not [name for name, _ in whole.network.pretrained_cfg.items() if name == "state_dict"]


@contextmanager
def hub(folder):
    """A server that answers as Hugging Face does for the files of `folder`; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            file = folder / self.path.replace("/", "_")
            content = file.read_bytes() if file.is_file() else b""
            self.send_response(200 if content or self.path == "/" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_pretrained_is_downloaded_once_into_hugging_faces_cache(tmp_path, monkeypatch):
    path = tmp_path / f"_timm_{VIT}_resolve_main_model.safetensors"
    file_of(VIT, path)
    with hub(tmp_path) as address:
        hub_at(monkeypatch, address)
        first = Timm(Timm.Config(model=VIT), cameras=1)
    path.rename(tmp_path / "moved.safetensors")
    again = Timm(Timm.Config(model=VIT), cameras=1)
    own = Timm(Timm.Config(model=VIT, weights=str(tmp_path / "moved.safetensors")), cameras=1)
    assert first.facts() == again.facts() and first.facts()["weights"].startswith("pretrained:")
    assert torch.equal(first(picture(160)), own(picture(160)))
    with pytest.raises(WeightsError, match="they cannot be had here"), hub(tmp_path) as address:
        hub_at(monkeypatch, address)
        Timm(Timm.Config(model=CNN), cameras=1)


def test_weights_that_cannot_be_had_are_told_soon_and_with_remedies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub_at(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        sets = ["--set", "Experiment.device = 'cpu'"]
        result = CliRunner().invoke(cli.app, ["run", "adroit_door_mobilenetv2", "encoder/timm_dinov2_small", *sets])
        assert time.monotonic() - start < 15
    assert result.exit_code == 2, result.output
    name = "timm/vit_small_patch14_dinov2.lvd142m"
    for words in (
        "no answer within 0.3 s",
        f"get https://huggingface.co/{name}/resolve/main/model.safetensors",
        "--set \"Timm.weights = '/path/model.safetensors'\"",
        '--set "Timm.weights = None"',
        "@EfficientNetLite0()",
    ):
        assert words in result.output
    assert "rrl weights fetch" not in result.output and "Traceback" not in result.output


def test_networks_without_published_weights_say_so():
    with pytest.raises(WeightsError, match=r"efficientnet_b8\.untrained has no published weights"):
        Timm(Timm.Config(model="efficientnet_b8"), cameras=1)


def test_untrained_is_explicit_and_reproducible():
    before = torch.get_rng_state()
    first, again, other = (Timm(Timm.Config(model=VIT, weights=None, seed=seed), cameras=1) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before) and not first.trained
    assert first.facts() == again.facts() != other.facts()
    assert np.isfinite(first(picture(160)).numpy()).all()
