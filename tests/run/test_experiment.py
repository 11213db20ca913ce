"""Experiments: what fits together, what a run leaves behind, and the statistics on the way."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.measured import lasting

from rrl import registry
from rrl.config import ginfile
from rrl.encoders.base import Encoder
from rrl.envs.base import FrameRequest
from rrl.machine.console import Display, duration
from rrl.registry import UserError
from rrl.rollout.data import Obs, Rollout
from rrl.run import facts, loop, policies
from rrl.run.experiment import Experiment
from rrl.run.iteration import train_metrics
from rrl.run.placement import resolve
from rrl.statistics import wilson
from rrl.store import checkpoint
from rrl.store.tracking import Log

SMALL = (
    "Experiment.num_envs = 3",
    "Experiment.iterations = 2",
    "Experiment.workers = 0",
    "Experiment.threads = 1",
    "Experiment.evaluators = (@SuccessRate(), @final/SuccessRate())",
    "SuccessRate.episodes = 2",
    "final/SuccessRate.episodes = 3",
    "Adroit.horizon = 10",
    "DAPG.trajectories = 4",
    "DAPG.value_batch = 8",
    "DAPG.policy_hidden = (16,)",
    "DAPG.bc_epochs = 1",
)


def test_an_own_encoder_that_nobody_would_train_is_refused_before_a_run(monkeypatch):
    monkeypatch.setattr(registry, "_components", dict(registry._components))

    @registry.register
    class Eager(Encoder):
        """Its author forgot to freeze it."""

        class Config(Encoder.Config):
            """Settings."""

            def frames(self):
                return FrameRequest(16, 16)

        dim = 2

        def __init__(self, config, cameras):
            super().__init__(config, cameras)
            self.mix = torch.nn.Linear(3, 2)

        def forward(self, frames):
            return self.mix(frames.float().mean((1, 2)))

        def inference(self, how):
            return self

    config = resolve(
        ginfile.load("adroit_door_state", [*SMALL, "Adroit.state = 'joints'", "Experiment.encoder = @Eager()"])
    )
    with pytest.raises(UserError, match=r"parameters of Eager take gradients.*`self.requires_grad_\(False\)`"):
        Experiment(config)


class Notebook:
    """A tracker that remembers."""

    run_id = "0"

    def __init__(self):
        self.rows, self.seen_tags, self.artifacts = [], {}, []

    def params(self, params): ...

    def tags(self, tags):
        self.seen_tags |= tags

    def dataset(self, dataset): ...

    def metrics(self, rows):
        self.rows = list(rows)

    def text(self, text, name): ...

    def artifact(self, path, folder=""):
        self.artifacts.append(path.name)

    def end(self, status): ...


def small(*more):
    return resolve(ginfile.load("adroit_door_state", (*SMALL, *more)))


def run(config, folder):
    folder.mkdir(exist_ok=True)
    notebook = Notebook()
    with Display() as display:
        assert loop.train(Experiment(config), folder, notebook, display) == "finished"
    return notebook


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, notebook) of a finished run: to read only."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(small(), folder)


def test_a_run_leaves_what_people_look_for(whole):
    folder, notebook = whole
    assert [row.step for row in notebook.rows] == [0, 40, 80, 80]
    names = set().union(*(row.metrics for row in notebook.rows))
    expected = {"train/success", "train/success_rrl", "train/return", "eval/success", "eval/success_low"}
    expected |= {"final/success", "final/success_sampled", "policy/kl", "value/error_after", "bc/loss_after"}
    expected |= {"time/simulate", "time/render", "time/encode", "time/steps_per_second", "time/policy_update"}
    assert expected <= names
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert {"learning_curve.png", "policy.safetensors", "checkpoint.safetensors"} <= set(notebook.artifacts)
    tags = notebook.seen_tags
    assert tags["protocol"] == "paper"
    assert tags["demos"] == "adroit_door_paper"
    assert len(tags["demos.checksum"]) == 16
    values = checkpoint.load_file(folder / "checkpoint.safetensors")[1]
    assert values["iteration"] == 2
    assert values["finished"]


def test_the_title_tells_faults_of_sensors_and_nothing_else_does():
    joints = ("Adroit.state = 'joints'", "State.blind = True")
    faults = ("Adroit.joint_noise = 0.02", "Adroit.joint_noise_kind = 'uniform'", "Adroit.stuck_joints = ('FFJ3',)")
    plain, faulty = (Experiment(small(*joints, *more)) for more in ((), faults))
    title = facts.title(plain).split("  ")
    assert facts.title(faulty).split("  ") == [*title[:-1], "uniform noise 0.02, stuck FFJ3", title[-1]]
    assert faulty.config.env.label() == plain.config.env.label() == "door"  # as in reports of earlier runs


def test_a_budget_ends_a_run_cleanly_and_resuming_changes_nothing(whole, tmp_path, capsys):
    parts = Notebook()
    for budget, expected in ((0.0, "budget"), (0.0, "budget"), (None, "finished")):
        with Display() as display:
            assert loop.train(Experiment(small()), tmp_path, parts, display, budget) == expected
        assert ("no update fitted in: the budget counts" in capsys.readouterr().out) == (expected == "budget")
    numbers = [[(r.step, lasting(r.metrics)) for r in n.rows] for n in (whole[1], parts)]
    assert numbers[0] == numbers[1]


def test_a_run_does_not_go_on_with_other_demonstrations(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    with pytest.raises(UserError, match="this run began with demos"):
        run(small("DemoSet.episodes = 3"), tmp_path)


def test_a_policy_file_acts_like_the_policy(whole):
    folder, _ = whole
    config, agent, facts = policies.load(folder / "policy.safetensors")
    assert config == small()
    tensors, _ = checkpoint.load_file(folder / "checkpoint.safetensors")
    observed = agent.observe(Obs(None, np.ones((2, facts["state_dim"]), np.float32)))
    actions = agent.act(observed, None)
    assert actions.shape == (2, 28)
    assert torch.equal(agent.policy_state()["log_std"], tensors["policy.log_std"])
    with pytest.raises(UserError, match="not a policy file"):
        policies.load(folder / "checkpoint.safetensors")


def test_the_same_seed_repeats_and_another_differs(whole, tmp_path):
    first, again = whole[1], run(small(), tmp_path / "b")
    other = run(small("Experiment.seed = 1"), tmp_path / "c")

    def numbers(notebook):
        return [lasting(r.metrics) for r in notebook.rows]

    assert numbers(first) == numbers(again)
    assert numbers(first) != numbers(other)


def test_cloning_alone(tmp_path):
    kept = [s for s in SMALL if not s.startswith(("DAPG", "Experiment.iterations"))]
    mine = ("Experiment.agent = @BC()", "Experiment.iterations = 0", "BC.bc_epochs = 2")
    config = resolve(ginfile.load("adroit_door_state", (*kept, *mine)))
    notebook = run(config, tmp_path)
    assert [row.step for row in notebook.rows] == [0, 0]
    assert notebook.rows[0].metrics["bc/loss_after"] < notebook.rows[0].metrics["bc/loss_before"]
    assert "final/success" in notebook.rows[1].metrics


@pytest.mark.parametrize(
    ("source", "override", "message"),
    [
        ("adroit_door_state", "Adroit.state = 'joints'", "policy would be blind"),
        ("adroit_door_state", "Adroit.state = 'none'", "policy would see nothing"),
        (
            "adroit_door_state",
            "Experiment.evaluators = (@SuccessRate(), @SuccessRate())",
            "SuccessRate is there twice",
        ),
        ("adroit_door_state", "Experiment.demos = None", "DAPG learns from demonstrations"),
        ("adroit_door_state", "Experiment.agent = @NPG()", "NPG takes no demonstrations"),
        ("adroit_door_ferm", "DemoSet.replay = 'states'", "FERM learns from the demonstrations' rewards"),
        ("dmc_finger_spin_curl", "Experiment.encoder = @PixelCNN()", "CURL trains its encoder on a loss"),
        ("dmc_finger_spin_sac_ae", "Experiment.encoder = @MobileNetV2()", "and MobileNetV2 has none"),
        ("adroit_door_ferm", "Experiment.encoder = @PixelCNN()", "FERM trains its encoder on a loss"),
        ("dmc_finger_spin_curl", "CURL.encoder_loss = 'warm_start'", "CURL has no warm start"),
        ("dmc_finger_spin_rad", "RAD.log_std_min = 3.0", "RAD.log_std_min is 3, not below log_std_max, 2"),
        ("dmc_finger_spin_rad", "Experiment.precision = 'int8'", "PixelCNN learns, which int8 can't"),
        ("adroit_door_state", "Experiment.agent = @BC()", "BC learns from demonstrations only"),
        ("adroit_door_state", "Experiment.evaluators = (@BlindControl(),)", "BlindControl clones"),
    ],
)
def test_what_does_not_fit_together_is_said_before_anything_runs(source, override, message):
    with pytest.raises(ginfile.ConfigError) as caught:
        ginfile.load(source, [override])
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.hint


def test_automatic_choices_are_made_once():
    config = resolve(ginfile.load("quickstart"))
    assert config.device in ("cpu", "cuda")
    assert config.precision in ("fp32", "bf16")
    assert config.threads is not None
    assert config.workers is not None
    assert resolve(config) == config
    for backend, groups in (("torch", 1), ("openvino", 2)):
        asked = ["Experiment.device = 'cpu'", f"Experiment.backend = '{backend}'"]
        assert resolve(ginfile.load("quickstart", asked)).groups == groups
        alone = [*asked, "Experiment.workers = 0"]  # nobody to take turns with
        assert resolve(ginfile.load("quickstart", alone)).groups == 1
    assert ginfile.loads(ginfile.dumps(config)) == config


def test_train_metrics_against_hand_counts():
    flags = np.zeros(60, bool)
    flags[:26] = True  # episode 0: 26 steps up; episode 1: 25
    flags[30:55] = True
    rollout = Rollout(
        obs=np.zeros((60, 1), np.float32),
        actions=np.zeros((60, 1), np.float32),
        rewards=np.concatenate([np.ones(30), 3 * np.ones(30)]),
        flags={"success": flags},
        episode=np.repeat([0, 1], 30).astype(np.int32),
        t=np.tile(np.arange(30), 2).astype(np.int32),
        terminated=np.zeros(60, bool),
        truncated=np.zeros(60, bool),
        final_obs=np.zeros((2, 1), np.float32),
        success_steps=25,
        seconds={"simulate": 1.0, "render": 2.0, "encode": 3.0, "act": 0.5, "total": 10.0},
    )
    metrics = train_metrics(rollout, ["success"])
    assert metrics["train/success"] == 50.0
    assert metrics["train/return"] == 60.0
    assert metrics["train/return_max"] == 90.0
    assert metrics["time/steps_per_second"] == 6.0
    low, high = metrics["train/success_low"], metrics["train/success_high"]
    assert (low, high) == pytest.approx((9.4531, 90.5469), abs=1e-3)  # Wilson 1/2, from the closed form below


@pytest.mark.parametrize(("k", "n"), [(0, 10), (57, 60), (100, 100), (1, 3)])
def test_wilson_against_its_formula(k, n):
    z, p = 1.959963984540054, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = wilson(k, n)
    assert low == pytest.approx(max(centre - half, 0), abs=1e-12)
    assert high == pytest.approx(min(centre + half, 1), abs=1e-12)


def test_the_log_is_cut_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = Log(path, 0)
    for step in range(3):
        log.append(step, {"a": step})
    with path.open("a") as file:
        file.write('{"step": 3, "ti')  # a kill in mid-write
    log = Log(path, 2)
    assert [row.step for row in log.rows] == [0, 1]
    assert len(path.read_text().splitlines()) == 2
    assert log.rows[-1].metrics == {"a": 1}
    with pytest.raises(UserError, match="damaged"):
        Log(path, 5)


def test_checkpoints_survive_kill_at_any_moment(tmp_path):
    """A process that writes without pause is killed again and again: the file is always whole."""
    path = tmp_path / "c.safetensors"
    script = (
        "import sys, pathlib, torch; from rrl.store import checkpoint\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    x = torch.full((300_000,), float(n))\n"
        "    checkpoint.save_file(pathlib.Path(sys.argv[1]), {'x': x}, {'n': n})\n"
        "    print(n, flush=True)\n"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(1 + int.from_bytes(os.urandom(1), "big") % 20):
            process.stdout.readline()
        process.kill()
        process.wait()
        tensors, values = checkpoint.load_file(path)
        assert bool((tensors["x"] == values["n"]).all())
    assert json.dumps(values)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        checkpoint.load_file(path)


def test_durations_read_well():
    assert [duration(s) for s in (4, 99.4, 720, 11_100)] == ["4 s", "99 s", "12 min", "3 h 05 min"]


def test_an_agent_says_what_it_wants_in_episodes_or_steps(tmp_path, monkeypatch):
    config = small()
    monkeypatch.setattr(type(config.agent), "wants", lambda self: 3)
    with pytest.raises(
        UserError, match=r"DAPG.Config.wants\(\) must give Episodes\(count\) or AgentSteps\(count\); got 3"
    ):
        run(config, tmp_path)
