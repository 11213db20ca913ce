"""Encoders whose published files hold more than the network: read as their publishers' loaders do.

The files here are made in those layouts, with seeded tensors; the references are the stock networks and transforms, and
for VDVAE its formulas on the bare tensors.
"""

import argparse

import pytest
import torch
from helpers.encoders import seeded
from pydantic import ValidationError
from safetensors.torch import save_file
from test_encoders import difference, pictures
from test_weights import Evil
from torch.nn import functional as F
from torchvision import transforms as T

from rrl import registry
from rrl.encoders import R3M, VC1, VDVAE, VIP, vdvae, weights
from rrl.encoders.base import Inference
from rrl.encoders.weights import WeightsError
from rrl.registry import build

IMAGENET = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LAYOUTS = {
    64: "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
    32: "32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
}
"""`enc_blocks` of VDVAE's two ImageNet networks: blocks at a side of the maps, blocks that pool."""
MEANS = {64: 115.92961967, 32: 116.2373}


# ---- VDVAE


def blocks(layout):
    """(side, pool) of each block."""
    for part in layout.split(","):
        side, number = (int(n) for n in part.replace("d", "x").split("x"))
        yield from [(side, 1)] * number if "x" in part else [(side, number)]


def vdvae_tensors(layout, seed=0):
    """The encoder's tensors as in the EMA file, some of them biases, and two of the decoder's."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}

    def convolution(name, channels, out, kernel):
        fan = channels * kernel**2
        tensors[f"encoder.{name}.weight"] = torch.randn(out, channels, kernel, kernel, generator=generator) / fan**0.5
        tensors[f"encoder.{name}.bias"] = torch.randn(out, generator=generator) / 10

    convolution("in_conv", 3, 512, 3)
    for number, (side, _) in enumerate(blocks(layout)):
        kernel = 3 if side > 2 else 1
        for layer, channels, out, k in (
            (1, 512, 128, 1),
            (2, 128, 128, kernel),
            (3, 128, 128, kernel),
            (4, 128, 512, 1),
        ):
            convolution(f"enc_blocks.{number}.c{layer}", channels, out, k)
    return {**tensors, "decoder.gain": torch.ones(1, 512, 1, 1), "decoder.dec_blocks.0.prior.c1.bias": torch.ones(128)}


def vdvae_features(tensors, layout, mean, frames):
    """The last maps of the encoder, by its formulas: uint8 [N, side, side, 3] -> [N, 512]."""

    def convolved(name, x):
        weight = tensors[f"encoder.{name}.weight"]
        return F.conv2d(x, weight, tensors[f"encoder.{name}.bias"], padding=weight.shape[-1] // 2)

    x = convolved("in_conv", (frames.permute(0, 3, 1, 2).float() - mean) / 69.37404)
    for number, (side, pool) in enumerate(blocks(layout)):
        assert x.shape[2:] == (side, side)
        y = x
        for layer in range(1, 5):
            y = convolved(f"enc_blocks.{number}.c{layer}", F.gelu(y))
        x = F.avg_pool2d(x + y, pool) if pool > 1 else x + y
    return x.flatten(1)


@pytest.mark.parametrize("size", [64, 32])
def test_vdvae_equals_its_formulas(size, tmp_path):
    tensors = vdvae_tensors(LAYOUTS[size])
    torch.save(tensors, tmp_path / "ema.th")
    encoder = VDVAE(VDVAE.Config(size=size, weights=str(tmp_path / "ema.th")), cameras=1)
    frames = pictures(1 if size == 64 else 2, size)
    with torch.no_grad():
        reference = vdvae_features(tensors, LAYOUTS[size], MEANS[size], frames)
    assert encoder.dim == 512 and encoder.config.frames().size == size
    assert difference(encoder(frames), reference) < 1e-4
    assert encoder.facts()["weights"].startswith("file:") and f"size={size}" in encoder.facts()["input"]


@pytest.mark.parametrize("size", [64, 32])
def test_vdvae_has_its_parameters(size):
    """A block's convolutions one by one; with the decoder's these make the 125M and 119M that its README states."""
    wide = (512 * 128 + 128) + 2 * (128 * 128 * 9 + 128) + (128 * 512 + 512)
    narrow = (512 * 128 + 128) + 2 * (128 * 128 + 128) + (128 * 512 + 512)
    counts = {64: (60, 5), 32: (42, 6)}
    expected = 3 * 512 * 9 + 512 + counts[size][0] * wide + counts[size][1] * narrow
    with torch.device("meta"):
        encoder = VDVAE(VDVAE.Config(size=size, weights=None), cameras=1)
    assert sum(p.numel() for p in encoder.parameters()) == expected == {64: 26_450_816, 32: 18_931_712}[size]


def test_an_untrained_vdvae_is_drawn_as_published():
    """torch's weights without biases, and the last ones of a block over the root of the number of blocks."""
    encoder = VDVAE(VDVAE.Config(size=32, weights=None), cameras=1)
    assert encoder.config.label() == "VDVAE32 (UNTRAINED)"
    blocks_ = encoder.network.enc_blocks
    assert len(blocks_) == 48 == len(list(blocks(LAYOUTS[32])))
    assert not any(p.any() for name, p in encoder.named_parameters() if name.endswith("bias"))
    for convolution, scale in ((blocks_[0].c1, 1), (blocks_[0].c4, 48**-0.5)):
        expected = scale / (3 * convolution.in_channels) ** 0.5
        assert convolution.weight.std() == pytest.approx(expected, rel=0.02)


@pytest.fixture
def shallow(monkeypatch):
    """A VDVAE of few blocks."""
    monkeypatch.setitem(vdvae.BLOCKS, 32, {32: 1, 8: 1, 1: 1})
    return VDVAE(VDVAE.Config(size=32, weights=None), cameras=2)


@pytest.mark.parametrize(("backend", "precision"), [("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16")])
@pytest.mark.filterwarnings("ignore:this CPU:UserWarning")
def test_vdvae_computes_on_every_backend(shallow, backend, precision):
    pytest.importorskip(backend)
    frames = pictures(3, 32, cameras=2)
    features = shallow.inference(Inference(backend, precision))(frames)
    assert difference(features, shallow(frames)) < {"fp32": 1e-4, "bf16": 0.02}[precision]


# ---- R3M, VIP, VC-1


def published_r3m(depth):
    """(content of the file, the stock network)"""
    network = seeded(f"resnet{depth}")
    network.fc = torch.nn.Identity()
    tensors = {f"module.convnet.{name}": tensor for name, tensor in network.state_dict().items()}
    language = {"module.lang_enc.model.embeddings.weight": torch.ones(2), "module.lang_rew.pred.0.bias": torch.ones(2)}
    return {"r3m": {**tensors, **language}, "global_step": 7}, network


def published_vip():
    """(content of the file, the stock network)"""
    network = seeded("resnet50")
    network.fc = torch.nn.Linear(2048, 1024)
    return {"vip": {f"module.convnet.{name}": t for name, t in network.state_dict().items()}}, network


def published_vc1(name="vit_base_patch16_224"):
    """(content of the file, the stock network), all tensors of such sizes that each of them matters."""
    timm = pytest.importorskip("timm", reason="pip install 'rrl[timm]'")
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0)
    network = network.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.normal_(0, 0.04, generator=generator)
        for key, tensor in network.state_dict().items():
            if "norm" in key and key.endswith("weight"):
                tensor.add_(1)
    others = {"mask_token": torch.ones(1, 1, 512), "decoder_pred.bias": torch.ones(768)}
    return {"model": {**network.state_dict(), **others}, "epoch": 182, "args": argparse.Namespace(lr=1e-3)}, network


BILINEAR = T.Compose([T.Resize(256), T.CenterCrop(224), IMAGENET])
BICUBIC = T.Compose([T.Resize(256, T.InterpolationMode.BICUBIC), T.CenterCrop(224), IMAGENET])
GOLDEN = {
    "r3m_18": (R3M, {"depth": 18}, lambda: published_r3m(18), BILINEAR, 512),
    "r3m_50": (R3M, {"depth": 50}, lambda: published_r3m(50), BILINEAR, 2048),
    "vip": (VIP, {}, published_vip, BILINEAR, 1024),
    "vc1_base": (VC1, {}, published_vc1, BICUBIC, 768),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_equal_to_the_stock_network_and_transform(name, tmp_path):
    cls, settings, make, transform, dim = GOLDEN[name]
    content, network = make()
    torch.save(content, tmp_path / "published.pt")
    encoder = cls(cls.Config(weights=str(tmp_path / "published.pt"), **settings), cameras=1)
    whole = pictures(1, 256)
    with torch.no_grad():
        reference = network(transform(whole.permute(0, 3, 1, 2) / 255))
    assert encoder.source.name == name and encoder.dim == dim == reference.shape[1]
    assert encoder.config.frames().crop_from == 256
    assert difference(encoder(whole[:, 16:240, 16:240]), reference) < 1e-4


def test_r3m_34_and_the_large_vc1_have_the_stock_networks_tensors():
    timm = pytest.importorskip("timm", reason="pip install 'rrl[timm]'")
    with torch.device("meta"):
        large = VC1(VC1.Config(size="large", weights=None), cameras=1)
        stock = timm.create_model("vit_large_patch16_224", num_classes=0)
        r3m = R3M(R3M.Config(depth=34, weights=None), cameras=1)
    expected = large.source.modernise(stock.state_dict())
    assert {n: t.shape for n, t in large.network.state_dict().items()} == {n: t.shape for n, t in expected.items()}
    assert large.dim == 1024 and large.config.label() == "VC1 large (UNTRAINED)"
    heads = {layer.self_attention.num_heads for layer in large.network.encoder.layers}
    assert heads == {block.attn.num_heads for block in stock.blocks}
    assert r3m.dim == 512 and len(r3m.network.layer3) == 6 and r3m.config.label() == "R3M34 (UNTRAINED)"


# ---- other containers, and files that don't fit


@pytest.fixture(scope="module")
def r3m():
    return published_r3m(18)[0]["r3m"]


def loaded(content, path, **settings):
    torch.save(content, path)
    return R3M(R3M.Config(depth=18, weights=str(path), **settings), cameras=1)


def test_the_networks_own_tensors_are_the_same_weights(r3m, tmp_path):
    published = loaded({"r3m": r3m}, tmp_path / "a.pt")
    own = {name.removeprefix("module.convnet."): t for name, t in r3m.items() if "lang_" not in name}
    save_file(own, tmp_path / "b.safetensors")
    plain = R3M(R3M.Config(depth=18, weights=str(tmp_path / "b.safetensors")), cameras=1)
    bare = loaded({name.removeprefix("module."): t for name, t in r3m.items()}, tmp_path / "c.pt")
    assert published.facts() == plain.facts() == bare.facts()
    assert published.config.label() == "R3M18" and published.trained


def refusal(content, path):
    with pytest.raises(WeightsError) as error:
        loaded(content, path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_unknown_missing_and_misshapen_tensors_are_listed(r3m, tmp_path):
    path = tmp_path / "x.pt"
    strange = {**r3m, "module.convnet.fc.weight": torch.ones(1), "module.audio.weight": torch.ones(1)}
    text = refusal({"r3m": strange}, path)
    assert "not in r3m_18: fc.weight" in text and "not in r3m_18: audio.weight" in text
    torn = {name: t for name, t in r3m.items() if name != "module.convnet.layer4.1.bn2.bias"}
    assert "missing: layer4.1.bn2.bias (512,)" in refusal({"r3m": torn}, path)
    assert "missing: conv1.weight" in refusal({"r3m": {}}, path)
    twice = {**r3m, "module.conv1.weight": r3m["module.convnet.conv1.weight"]}
    assert "names with and without 'convnet.'" in refusal({"r3m": twice}, path)
    deeper = published_r3m(34)[0]
    text = refusal(deeper, path)
    assert "not in r3m_18: layer1.2.conv1.weight" in text and "more" in text


def test_other_checkpoints_code_and_nan_are_refused(r3m, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    assert "it holds: ['vip']" in refusal({"vip": r3m}, path)
    assert "it holds: ['epoch']" in refusal({"r3m": {"epoch": 3}}, path)
    assert "it holds: list" in refusal({"r3m": [1]}, path)
    refusal({"r3m": r3m, "args": argparse.Namespace(callback=Evil())}, path)
    assert not (tmp_path / "evil").exists()
    broken = {**r3m, "module.convnet.bn1.bias": torch.full((64,), torch.nan)}
    assert "bn1.bias holds nan (64 of 64 numbers)" in refusal({"r3m": broken}, path)
    torch.save({"r3m": r3m}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"cannot read .*x.pt as a .safetensors or .pth state dict of r3m_18"):
        R3M(R3M.Config(depth=18, weights=str(path)), cameras=1)


def test_a_vdvae_of_the_other_size_is_told(shallow, tmp_path):
    tensors = vdvae_tensors("64x1,64d8,8x1,8d8,1x1")
    torch.save({f"module.{name}": t for name, t in tensors.items()}, tmp_path / "x.th")  # as the file without EMA
    weights.load(tmp_path / "x.th", shallow.source, shallow.network)
    tensors |= {"encoder.enc_blocks.5.c1.bias": torch.ones(128), "prior.bias": torch.ones(1)}
    torch.save(tensors, tmp_path / "x.th")
    with pytest.raises(WeightsError) as error:
        weights.load(tmp_path / "x.th", shallow.source, shallow.network)
    for difference_ in ("not in vdvae32: enc_blocks.5.c1.bias", "not in vdvae32: prior.bias"):
        assert difference_ in str(error.value)


def test_files_of_one_folder_are_told_in_one_breath():
    told = registry.get("R3M").Config.input_file("weights").remedy()
    folder = "https://pytorch.s3.amazonaws.com/models/rl/r3m"
    assert told == f"get it from {folder} (r3m_18.pt, r3m_34.pt, r3m_50.pt), and name its path; None: untrained"
    both = registry.get("VDVAE").pretrained
    assert f"get it from {both[0].address} or {both[1].address}, and" in weights.by_hand(*both)


@pytest.mark.parametrize("name", ["R3M", "VC1", "VDVAE", "VIP"])
def test_users_are_told_where_to_get_the_file(name):
    cls = registry.get(name)
    with pytest.raises(ValidationError, match="weights"):  # never untrained by default
        cls.Config()
    config = cls.Config(weights="/no/such.pt")
    with pytest.raises(WeightsError) as error:
        build(config, cameras=1)
    assert f"{name}.weights = '/no/such.pt': there is no file /no/such.pt" in str(error.value)
    assert f"get it from {config.source.address}" in str(error.value) and "None: untrained" in str(error.value)
    assert cls.Config(weights=None).label().endswith("(UNTRAINED)")
    for source in cls.pretrained:
        assert all(part in cls.Config.input_file("weights").remedy() for part in source.address.rsplit("/", 1))
        row = next(row for row in weights.rows() if row.name == source.name)
        assert (row.encoder, row.checksum, row.where) == (name, None, f"get {source.address}")
        with pytest.raises(WeightsError, match=f"{source.name} is got by hand, as nothing"):
            weights.fetch(source.name)
