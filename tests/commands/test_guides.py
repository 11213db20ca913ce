"""The guides, followed to the letter: each file is made, each command typed, in order, and what is shown comes out."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.guides import Reader, newest
from helpers.plugins import found_in
from helpers.stores import prepared
from PIL import Image
from torchvision.models import get_model, get_model_weights

from rrl import registry
from rrl.envs.base import FrameRequest
from rrl.store import results

ALWAYS = ("Experiment.threads = 1", "Experiment.backend = 'torch'")
HERE = ("Experiment.workers = 0",)
FILM = ("Video.episodes = 1", "Video.every = 10")
ALONE = ("Experiment.evaluators = ()",)
ROUND = (
    "Experiment.log_every = 10",
    "SAC.hidden = (8,)",
    "SAC.init_steps = 0",
    "SAC.batch = 4",
    "Gymnasium.horizon = 10",
)
"""An episode, and what SAC does after it."""
ONCE = ("Experiment.iterations = 1",)


def episodes(agent):
    """An update of two short episodes."""
    return "Experiment.num_envs = 2", f"{agent}.trajectories = 2", f"{agent}.value_batch = 4"


CLONE = (*ONCE, *episodes("DAPG"), *HERE, *ALONE, "DAPG.bc_epochs = 1", "DAPG.bc_batch = 4", "DemoSet.episodes = 2")
QUICKLY = {
    "pusher.gin": (*ROUND, *FILM),
    # Every episode succeeds: untrained experts can be recorded too.
    "pusher.gin method/state_sac_rad": (*ROUND, *ONCE, *ALONE, "Gymnasium.success_threshold = -9.0"),
    "pusher.gin method/rrl": (*CLONE, "Gymnasium.horizon = 10"),
    "arm.gin": (*episodes("NPG"), *ALONE, "Experiment.workers = 1"),
    "expert.gin": (*ONCE, *episodes("NPG"), *HERE, *ALONE, "MyArm.radius = 9.0"),
    "arm.gin method/rrl": CLONE,
    "pen.gin": (*CLONE, "Adroit.horizon = 5", "DAPG.policy_hidden = (8,)"),
    "pendulum.gin": (
        *ONCE,
        *HERE,
        "Experiment.num_envs = 2",
        "Reinforce.trajectories = 2",
        "EpisodeReturn.episodes = 1",
    ),
}


def quickly(words):
    """What makes a run take seconds."""
    if words[0] == "sweep":
        return (*ALWAYS, *(text for text in QUICKLY[words[1]] if not text.startswith("DemoSet.episodes")))
    if words[0] != "run":
        return ()
    return (*ALWAYS, *QUICKLY[" ".join(words[1:]).split(" --")[0]])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(prepared(tmp_path))
    return tmp_path


def test_your_own_task_in_ten_lines(here):
    said = Reader(quickly).follow("your_task.md")
    lines = [line for line in Path("pusher.gin").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 10
    for picture in ("first.png", "door.png"):
        assert Image.open(picture).size == (224, 224)
    tried = next(text for line, text in said.items() if line.startswith("rrl run pusher.gin --set"))
    assert "steps/s" in tried and "mean action: success" in tried
    (video,) = {Path(line.split()[-1]) for line in tried.splitlines() if line.startswith("video: ")}
    assert video.stat().st_size > 1000
    assert "resumed after 2 updates" in said["rrl resume RUN --iterations 3"]
    assert Path("report.html").stat().st_size > 10_000
    assert "then kept in" in said[[*said][-1]]  # features of demonstrations


@pytest.fixture
def plugged(here, monkeypatch):
    """A reader that installs the page's package into a folder that this process and its children search."""

    class Plugged(Reader):
        def install(self, words):
            assert words == ["install", "-e", "."]
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-build-isolation", "--no-deps"]
            subprocess.run([*pip, "--target", "site", "."], check=True, timeout=120)
            (module,) = (path.stem for path in Path().glob("*.py"))
            found_in(monkeypatch, here / "site", module)

    return Plugged(quickly)


def test_your_own_encoder(plugged, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", "torch")  # an empty cache
    said = plugged.follow("your_encoder.md")
    assert "SqueezeNet     SqueezeNet 1.1 (512 features per camera)" in said["rrl list encoder"]
    assert "SqueezeNet.weights = 'imagenet'" in said["rrl describe SqueezeNet"]
    (row,) = (line for line in said["rrl weights list"].splitlines() if "SqueezeNet" in line)
    assert "squeezenet1_1" in row and "a run would download" in row
    for checked in ("rrl check adroit_door_mobilenetv2 squeezenet.gin", [*said][-1]):
        assert "Experiment.encoder = @SqueezeNet()" in said[checked]
    equals_torchvisions(registry.get("SqueezeNet"))


def equals_torchvisions(encoder_class):
    """From a file with the names of torchvision's."""
    network = get_model("squeezenet1_1").eval()
    torch.save(network.state_dict(), "squeezenet.pth")
    encoder = encoder_class(encoder_class.Config(weights="squeezenet.pth"), cameras=1)
    assert get_model_weights("squeezenet1_1")["IMAGENET1K_V1"].url == encoder.source.url
    pictures = torch.randint(256, (1, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        transformed = get_model_weights("squeezenet1_1")["IMAGENET1K_V1"].transforms()(pictures.permute(0, 3, 1, 2))
        expected = network.features(transformed).mean((2, 3))
    torch.testing.assert_close(encoder(pictures[:, 16:240, 16:240]), expected, rtol=1e-4, atol=1e-5)


def test_your_own_environment_class(plugged):
    said = plugged.follow("your_environment.md")
    assert "MyArm          A planar arm reaches for a red ball." in said["rrl list environment"]
    assert "MyArm.radius = 0.05" in said["rrl describe MyArm"]
    assert Image.open("arm.png").size == (224, 224)
    assert "1 worker process" in said['rrl run arm.gin --set "Experiment.iterations = 1"']
    assert "resumed after 1 updates (100 steps)" in said["rrl resume RUN --iterations 2"]
    assert "bit for bit" in said["rrl demos verify arm_demos.npz"]
    assert "then kept in" in said[[*said][-1]]  # features of demonstrations
    assert results.read(Path("runs") / newest()).labels["env"] == "MyArm"
    goes_on_bit_for_bit(registry.get("MyArm"))


def test_your_own_agent(plugged):
    said = plugged.follow("your_agent.md")
    assert "Reinforce      REINFORCE: log-likelihoods of actions" in said["rrl list agent"]
    assert "Reinforce.lr = 0.003" in said["rrl describe Reinforce"]
    assert re.search(r"update 1/1 .*\bstd \d\.\d\d", said["rrl run pendulum.gin"], re.S)
    assert "resumed after 1 updates" in said["rrl resume RUN --iterations 110"]


def test_your_own_evaluator(plugged):
    said = plugged.follow("your_evaluator.md")
    assert (
        "Experiment.evaluators = (@SuccessRate(), @Smoothness())"
        in said["rrl check adroit_door_mobilenetv2 smooth.gin"]
    )
    assert re.search(r"moves by 0\.0\d\d a step", said["rrl eval adroit_door_expert --with smooth.gin"])


def test_the_tutorial(here):
    said = Reader(quickly).follow("tutorial.md")
    assert "DAPG.trajectories = 50" in said["rrl check pen.gin"]
    assert "resumed after 1 updates" in said["rrl resume RUN --iterations 10"]
    sweeps = [text for line, text in said.items() if line.startswith("rrl sweep")]
    assert len(sweeps) == 2
    assert said["rrl runs --name episodes="].count("finished") == 4
    assert Path("all.html").stat().st_size > 10_000
    assert len([*Path("runs").glob("*/learning_curve.png")]) == 5


class Scripts(Reader):
    """Runs Python files in this process; what they print stands in `outputs`."""

    def __init__(self, printed, learning_starts, steps):
        super().__init__(lambda words: ())
        self.printed, self.learning_starts, self.steps = printed, learning_starts, steps

    def install(self, words):
        assert words[0] == "install"

    def python(self, words):
        script = Path(words[0])
        text = script.read_text()
        assert '"learning_starts": 500' in text
        script.write_text(text.replace('"learning_starts": 500', f'"learning_starts": {self.learning_starts}'))
        return self.run(script, str(self.steps or words[1]))

    def run(self, script, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(script), *arguments])
            runpy.run_path(str(script), run_name="__main__")
        self.outputs[str(script)] = self.printed()
        return self.outputs[str(script)]


@pytest.fixture
def printed(capsys, tmp_path, monkeypatch):
    """What scripts print, in a folder of their own."""
    pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(tmp_path)
    return lambda: capsys.readouterr().out


def test_your_own_training_code(printed):
    pytest.importorskip("onnxruntime", reason="pip install 'rrl[onnx]'")
    page = Scripts(printed, learning_starts=5, steps=15)
    said = page.follow("your_training.md")
    assert re.match(r"first 20 episodes: \d+\.\d, last 20: \d+\.\d\n", said["pendulum.py"])
    assert page.run(Path("door.py")).splitlines() == ["(1304,)", "(4, 1304)"]
    assert page.run(Path("act.py")).splitlines() == [
        "uint8 [batch, 224, 224, 3], RGB, cameras top, the centre of 256 pixels",
        "(1, 28)",
    ]
    exported = said["rrl export adroit_door_mobilenetv2 --onnx door.onnx"]
    assert float(re.search(r"onnxruntime is (\S+) away from torch", exported)[1]) < 1e-4


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_stable_baselines_learns_on_our_features_alone(printed):
    """The page's own figures: 4.8 steps at first, 25.8 in the end."""
    page = Scripts(printed, learning_starts=500, steps=None)
    page.follow("your_training.md")
    first, last = map(float, re.findall(r": (\S+?)(?:,|\n)", page.outputs["pendulum.py"]))
    assert first < 8 and last > 2.5 * first


def goes_on_bit_for_bit(factory):
    """An episode that is saved and restored in another simulator is the same, in its pictures too."""
    one, two = (factory(factory.Config(state="task")).make_one(FrameRequest(32, 40)) for _ in range(2))
    one.reset(seed=1)
    two.reset(seed=2)
    push = np.array([0.3, -0.8], np.float32)
    one.step(push)
    two.set_state(one.get_state())
    for ours, theirs in ((one.step(push), two.step(push)), (one.reset(), two.reset())):
        for name, value in ours[0].items():
            np.testing.assert_array_equal(value, theirs[0][name])
