"""Backends of frozen encoders: static batches, OpenVINO in all precisions, what is refused, the reports."""

import io
import logging
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from rich.console import Console

from rrl.encoders import MobileNetV2, ResNet, weights
from rrl.encoders.backends import openvino as openvino_backend
from rrl.encoders.backends import pytorch as torch_backend
from rrl.encoders.backends.openvino import CHUNK, parity
from rrl.encoders.backends.pytorch import StaticBatch, compile_or_warn
from rrl.encoders.base import Inference
from rrl.encoders.settings.mobilenet import WHEEL
from rrl.registry import UserError

CPU = torch.device("cpu")
needs_wheel = pytest.mark.skipif(not weights.wheel_file(WHEEL.file), reason="pip install 'rrl[offline]'")


@pytest.fixture(scope="module")
def openvino():
    """What needs the extra `cpu` is skipped without it; the project's own CI installs it."""
    return pytest.importorskip("openvino", reason="pip install 'rrl[cpu]'")


@pytest.fixture(scope="module")
def resnet():
    return ResNet(ResNet.Config(depth=18, weights=None), cameras=1)


def pictures(n, cameras=1, seed=0):
    """Smooth random pictures with edges, uint8 [n, 224, 224, 3 * cameras]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3 * cameras, 7, 7, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, 224, mode="bicubic").clamp(0, 1) * 255
    fine[:, :, 60:160, 90:130] = 255 * torch.rand(n, 3 * cameras, 1, 1, generator=generator)
    return fine.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def difference(a, b):
    """Largest relative error of a row."""
    return ((a - b).norm(dim=1) / b.norm(dim=1)).max().item()


# ---- torch: the CUDA path's parts, on the CPU


def step(frames):
    """Stands for a network: three features per picture, which tell pictures apart."""
    return torch.stack([frames[:, :, :, c].float().mean((1, 2)) for c in range(3)], dim=1)


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_static_batches_pad_and_split(count):
    sizes = []

    def watched(frames):
        sizes.append(len(frames))
        return step(frames)

    encode = StaticBatch(watched, (3, 224, 224, 3), CPU, compiled=False)
    frames = pictures(count)
    first = encode(frames)
    assert torch.equal(first, step(frames))
    assert torch.equal(encode(pictures(2, seed=1)), step(pictures(2, seed=1)))
    assert torch.equal(first, step(frames)), "a later call must not overwrite an earlier one's features"
    assert set(sizes) == {3}


def test_a_static_batch_of_a_network_is_its_forward(resnet):
    frames = pictures(3)
    how = Inference(batch=2)
    lowered = torch_backend.fused(resnet.network)

    def whole(x):
        return lowered(torch.addcmul(resnet.shift, x.permute(0, 3, 1, 2).float(), resnet.scale))

    found = StaticBatch(whole, (how.batch, 224, 224, 3), CPU, compiled=False)(frames)
    assert difference(found, resnet(frames)) < 1e-4
    assert not found.is_inference() and not found.requires_grad


def test_compilation_is_used_where_it_works_and_explained_where_it_does_not(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    faster = compile_or_warn(step, pictures(2))
    assert faster is not step and torch.allclose(faster(pictures(2)), step(pictures(2)))

    def broken(function, **options):
        raise RuntimeError("no C compiler\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match="runs without it: no C compiler$"):
        assert compile_or_warn(step, pictures(2)) is step


# ---- OpenVINO


@pytest.fixture(scope="module")
def float32(openvino, resnet):
    return resnet.inference(Inference(backend="openvino"))


def test_openvino_float32_is_forward(float32, resnet):
    frames = pictures(5)
    found = float32(frames)
    assert found.dtype == torch.float32 and found.shape == (5, 512)
    assert difference(found, resnet(frames)) < 1e-4


def test_openvino_features_do_not_depend_on_neighbours_or_time(float32):
    frames = pictures(2 * CHUNK + 1)
    together = float32(frames)
    alone = torch.cat([float32(frames[i : i + 1]) for i in range(len(frames))])
    assert torch.equal(together, alone)
    assert torch.equal(together, float32(frames.flip(0)).flip(0))
    assert torch.equal(together, float32(frames))


def test_openvino_encodes_cameras_in_order_on_any_number_of_threads(float32):
    two = ResNet(ResNet.Config(depth=18, weights=None), cameras=2)
    frames = pictures(3, cameras=2)
    found = two.inference(Inference(backend="openvino", threads=2))(frames)
    alone = torch.cat([float32(frames[..., :3]), float32(frames[..., 3:])], dim=1)
    assert torch.equal(found, alone)
    assert difference(found[:, :512], found[:, 512:]) > 1e-2


def test_openvino_bf16_keeps_delicate_layers_apart(openvino, monkeypatch):
    """The split network is the network: in float32, which a CPU without bf16 computes, features agree."""
    encoder = MobileNetV2(MobileNetV2.Config(weights=None), cameras=1)
    stages = []
    monkeypatch.setattr(
        openvino_backend, "_Stage", type("Watched", (openvino_backend._Stage,), {"__init__": _watch(stages)})
    )
    native = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encode = encoder.inference(Inference(backend="openvino", precision="bf16"))
    assert [hint for _, hint in stages] == ["f32", "bf16"]
    convolutions = [len(openvino_backend._layers(model)) for model, _ in stages]
    assert convolutions == [encoder.delicate, 52 - encoder.delicate]
    assert native or any("has no bf16" in str(w.message) for w in caught)
    frames = pictures(3)
    assert difference(encode(frames), encoder(frames)) < (0.05 if native else 1e-4)


def _watch(seen, original=openvino_backend._Stage.__init__):
    def init(self, ov, core, model, threads, hint):
        seen.append((model, hint))
        original(self, ov, core, model, threads, hint)

    return init


@pytest.fixture(scope="module")
def calibration():
    return pictures(8, seed=5).numpy()


@pytest.fixture(scope="module")
def nncf(openvino):
    return pytest.importorskip("nncf", reason="pip install 'rrl[cpu]'")


@pytest.fixture(scope="module")
def int8(nncf, resnet, calibration):
    return resnet.inference(Inference("openvino", "int8", calibration=calibration))


def test_int8_is_close_and_not_the_same(int8, resnet):
    frames = pictures(12, seed=6)
    found = int8(frames)
    mean, least, error = parity(found.numpy(), resnet(frames).numpy())
    assert mean > 0.99 and least > 0.99
    assert 0.001 < error < 0.3
    assert torch.equal(found[:1], int8(frames[:1])), "its neighbours don't matter"


def test_int8_repeats_in_another_process_and_is_silent(int8, tmp_path, calibration):
    np.save(tmp_path / "calibration.npy", calibration)
    code = (
        "import sys, numpy as np, torch\n"
        "from rrl.encoders import ResNet\n"
        "from rrl.encoders.base import Inference\n"
        "calibration = np.load(sys.argv[1])\n"
        "how = Inference('openvino', 'int8', threads=2, calibration=calibration)\n"
        "encode = ResNet(ResNet.Config(depth=18, weights=None), cameras=1).inference(how)\n"
        "np.save(sys.argv[2], encode(torch.from_numpy(calibration)).numpy())\n"
        "assert not any(name.startswith('openvino_telemetry') for name in sys.modules)\n"
    )
    arguments = [str(tmp_path / "calibration.npy"), str(tmp_path / "features.npy")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == "", "no chatter, no progress bars"
    assert np.array_equal(np.load(tmp_path / "features.npy"), int8(torch.from_numpy(calibration)).numpy())


@pytest.mark.slow
@needs_wheel
def test_int8_of_mobilenet_is_usable_and_poor_features_are_told(nncf, monkeypatch):
    """Trained MobileNetV2 whose first blocks are quantised too has errors of 0.4 to 1.1."""
    encoder = MobileNetV2(MobileNetV2.Config(), cameras=1)
    monkeypatch.setattr(openvino_backend, "POOR", 0.01)
    with pytest.warns(UserWarning, match=r"int8 features of this network are poor: \d+ % off"):
        encode = encoder.inference(Inference("openvino", "int8", calibration=pictures(16, seed=7).numpy()))
    frames = pictures(12, seed=8)
    mean, _, error = parity(encode(frames).numpy(), encoder(frames).numpy())
    assert mean > 0.98 and 0.01 < error < 0.3


def test_parity_in_numbers():
    reference = np.array([[3.0, 4.0], [5.0, 12.0], [-8.0, 6.0]])
    assert parity(2 * reference + 0.0, reference) == pytest.approx((1, 1, 1))
    assert parity(reference + 7.0, reference)[2] == pytest.approx(0, abs=1e-12), "common shifts don't count"
    turned = reference.copy()
    turned[0] = [4.0, -3.0]
    assert parity(turned, reference)[1] == pytest.approx(0, abs=1e-12)


# ---- what can't be had


def refusal(encoder, *how, **more):
    with pytest.raises(UserError) as error:
        encoder.inference(Inference(*how, **more))
    return str(error.value)


def test_int8_on_torch_names_the_way(resnet):
    text = refusal(resnet, "torch", "int8")
    assert "backend 'openvino'" in text and "pip install 'rrl[cpu]'" in text


def test_openvino_is_for_cpus(resnet):
    assert "choose backend 'torch'" in refusal(resnet, "openvino", device=torch.device("cuda"))


@pytest.mark.parametrize("frames", [None, pictures(1).numpy()], ids=["none", "one"])
def test_int8_needs_calibration(resnet, frames):
    assert "Inference.calibration" in refusal(resnet, "openvino", "int8", calibration=frames)


def test_calibration_must_be_frames_of_this_encoder(resnet):
    with pytest.raises(ValueError, match=r"takes uint8 \[N, 224, 224, 3\]"):
        resnet.inference(Inference("openvino", "int8", calibration=pictures(2, cameras=2).numpy()))


@pytest.mark.parametrize("missing", ["openvino", "nncf"])
def test_a_missing_package_is_named_with_its_remedy(request, resnet, monkeypatch, missing):
    if missing == "nncf":
        request.getfixturevalue("openvino")
    monkeypatch.setitem(sys.modules, missing, None)
    text = refusal(resnet, "openvino", "int8", calibration=pictures(2).numpy())
    assert f"needs the package {missing}: pip install 'rrl[cpu]'" in text
    assert logging.getLogger("torch.export").level == logging.NOTSET


# ---- the report


def test_parity_report_of_recorded_states(openvino):
    from rrl.bench import parity as report

    rows = report.report("MobileNetV2", "door", "fast", [("torch", "fp32"), ("openvino", "fp32")], every=250)
    assert [(row.backend, row.precision) for row in rows] == [("torch", "fp32"), ("openvino", "fp32")]
    assert all(row.frames >= 12 and row.centred_rms < 1e-3 and row.least_cosine > 0.9999 for row in rows)
    assert rows[0].centred_rms == 0
    console = Console(record=True, width=120, file=io.StringIO())
    report.show(rows, console)
    text = console.export_text()
    assert "MobileNetV2" in text and "openvino" in text and "centred RMS" in text


def test_encoder_cases_run_beside_their_reference(monkeypatch):
    from rrl.bench import encoders, measure, report

    monkeypatch.setattr(encoders, "ways", lambda: [("torch", "fp32")])
    threads = torch.get_num_threads()
    try:
        cases, left_out = encoders.cases(["MobileNetV2"], batches=(2,), seconds=0.01)
    finally:
        torch.set_num_threads(threads)
    directly, own = "MobileNetV2 directly torch batch 2", "MobileNetV2 torch fp32 batch 2"
    assert [case.name for case in cases] == ["reference MobileNetV2", directly, own]
    assert {case.against for case in cases[1:]} == {cases[0].name}
    entries = measure.interleave(cases, 2, encoders.UNIT)
    (share,) = encoders.shares(entries)
    ratio = np.median(np.divide(entries[2].rates, entries[1].rates))
    assert share == f"{own}: {ratio:.2f} of the better direct call"
    assert len(left_out) == len(encoders.WAYS) - 1 and set(report.ways()) <= set(encoders.WAYS)


def test_direct_calls_are_the_network_itself(openvino, resnet):
    from rrl.bench.measure import reference

    direct, frames = reference("direct_encode"), pictures(3)
    normalised = resnet.source.input.normalised(frames, *resnet.source.input.affine()).contiguous()
    for call in (direct.with_torch(resnet.network, normalised), direct.with_openvino(resnet.network, normalised, 1)):
        assert difference(torch.from_numpy(call()), resnet(frames)) < 1e-4


def test_the_reference_encodes_as_we_do(resnet):
    from rrl.bench.measure import reference

    whole = torch.nn.functional.pad(pictures(2).permute(0, 3, 1, 2), (16, 16, 16, 16), value=9)
    whole = whole.permute(0, 2, 3, 1).contiguous()
    found = torch.from_numpy(reference("reference_encode").encode(resnet.network, whole.numpy()))
    assert difference(found, resnet(pictures(2))) < 1e-4
