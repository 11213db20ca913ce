"""An encoder that an agent learned, exported and frozen."""

import json

import pytest
import torch
from helpers.pixels import frames_of, only_problem, seeded
from pydantic import ValidationError
from safetensors.torch import save_file

from rrl import registry
from rrl.config import ginfile
from rrl.encoders import AutoencoderCNN, ContrastiveCNN, FixedEncoder, PixelCNN
from rrl.encoders.base import Inference
from rrl.encoders.fixed import save_encoder
from rrl.encoders.weights import WeightsError
from rrl.registry import UserError
from rrl.store import checkpoint


def exported(path, cls=PixelCNN, cameras=1, seed=1, **settings):
    """(source, head) with the file written; weights as if trained, biases and LayerNorm too."""
    encoder = cls(cls.Config(**settings), cameras)
    generator = seeded(seed)
    encoder.initialise(generator)
    head = encoder.head(generator)
    with torch.no_grad():
        for p in [*encoder.parameters(), *head.parameters()]:
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    save_encoder(path, encoder, head, {"run": "abc", "steps": 500})
    return encoder, head


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (PixelCNN, {}),
        (ContrastiveCNN, {"augmentation": "translate", "stack": 1}),
        (AutoencoderCNN, {"render": 40, "own_learning_rate": 0.002}),
    ],
)
def test_fixed_encoder_is_the_exported_one(cls, settings, tmp_path):
    path = tmp_path / "encoder.safetensors"
    source, head = exported(path, cls, cameras=2, **settings)
    config = FixedEncoder.Config(file=str(path))
    assert config.frames() == source.config.frames()
    fixed = FixedEncoder(config, cameras=2)
    assert config.label() == f"FixedEncoder ({cls.__name__})"
    frames = frames_of(source, 3)
    expected = head(source.trunk(source.view(frames)))
    assert torch.equal(fixed(frames), expected) and fixed.dim == 50
    assert torch.equal(fixed.inference(Inference())(frames), expected)
    rough = fixed.inference(Inference(precision="bf16"))(frames)
    assert rough.dtype == torch.float32 and 0 < (rough - expected).norm() < 0.05 * expected.norm()
    assert torch.equal(fixed(frames), expected)  # bf16 is a copy's
    with pytest.raises(UserError, match="can't compute by torch in int8"):
        fixed.inference(Inference(precision="int8"))
    assert not fixed.learns and fixed.trained and not fixed.train().training
    assert not any("objective" in name for name in fixed.state_dict())


def test_exported_file_says_what_it_is(tmp_path):
    exported(tmp_path / "a", stack=2)
    values = checkpoint.load_values(tmp_path / "a")
    assert values == checkpoint.load_file(tmp_path / "a")[1]
    assert values["encoder"] == "PixelCNN" and values["cameras"] == 1
    assert values["run"] == "abc" and values["steps"] == 500
    assert PixelCNN.Config(**values["encoder_config"]) == PixelCNN.Config(stack=2)
    facts = FixedEncoder(FixedEncoder.Config(file=str(tmp_path / "a")), 1).facts()
    assert facts == {"weights": f"PixelCNN:{values['checksum']}"}
    exported(tmp_path / "b", stack=2, seed=2)
    assert FixedEncoder(FixedEncoder.Config(file=str(tmp_path / "b")), 1).facts() != facts


def rewritten(path, **changes):
    """The file with other values in its header."""
    tensors, values = checkpoint.load_file(path)
    checkpoint.save_file(path, tensors, {**values, **changes})


def test_files_that_are_no_exported_encoder_are_explained(tmp_path):
    good = tmp_path / "good"
    exported(good, crop=40)
    cases = {
        "missing": (lambda p: None, "there is no file"),
        "garbage": (lambda p: p.write_bytes(b"x" * 99), "not a whole safetensors file"),
        "strange": (lambda p: save_file({"a": torch.ones(1)}, p), "not one that rrl wrote"),
        "policy": (lambda p: checkpoint.save_file(p, {}, {"config": ""}), "not an exported encoder"),
        "frozen": (lambda p: rewritten(p, encoder="ResNet"), "exported from ResNet, which is no encoder"),
        "unknown": (lambda p: rewritten(p, encoder="Theirs"), "exported from Theirs"),
        "old": (lambda p: rewritten(p, encoder_config={"kernel": 3}), "another version: .* has no field kernel"),
    }
    for name, (spoil, words) in cases.items():
        path = tmp_path / name
        if name in ("frozen", "unknown", "old"):
            path.write_bytes(good.read_bytes())
        spoil(path)
        with pytest.raises(ValidationError, match=words):
            FixedEncoder.Config(file=str(path))


def test_a_missing_file_is_a_problem_with_its_place():
    problem = only_problem("Experiment.encoder = @FixedEncoder()\nFixedEncoder.file = '/no/such.safetensors'\n")
    assert problem.startswith("x.gin:2: FixedEncoder.file = '/no/such.safetensors': there is no file")
    assert "from a finished run of " in problem and "@RAD()" in problem


def test_wrong_cameras_and_changed_tensors_are_explained(tmp_path):
    path = tmp_path / "encoder"
    exported(path, crop=40)
    config = FixedEncoder.Config(file=str(path))
    with pytest.raises(WeightsError, match=r"trained on 1 camera\(s\); this environment has 3"):
        FixedEncoder(config, cameras=3)
    tensors, values = checkpoint.load_file(path)
    tensors["head.0.bias"][0] += 1
    checkpoint.save_file(path, tensors, values)
    with pytest.raises(WeightsError, match="was changed after its export"):
        FixedEncoder(config, cameras=1)
    exported(path, crop=40)
    rewritten(path, encoder_config=json.loads(PixelCNN.Config(crop=50).model_dump_json()))
    with pytest.raises(WeightsError, match="doesn't hold a PixelCNN and its head"):
        FixedEncoder(config, cameras=1)


def test_a_gin_file_of_a_fixed_encoder_round_trips(tmp_path):
    path = tmp_path / "encoder.safetensors"
    exported(path, crop=40)
    config = registry.get("FixedEncoder").Config(file=str(path))
    assert hash(config) == hash(FixedEncoder.Config(file=str(path)))
    assert ginfile.dumps(config) == f"FixedEncoder.file = '{path}'\n"
