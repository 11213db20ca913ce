"""Numbers that go wrong: told where they come from, before anything is made of them; what was good is kept."""

import json
import math
import re

import gymnasium
import numpy as np
import pytest
import torch
from helpers.made_up_agents import WantsEpisodes
from helpers.sac_agents import Colours, make
from helpers.stores import prepared
from safetensors.torch import save
from typer.testing import CliRunner

from rrl import cli, registry
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.envs.vector import WorkerVectorEnv
from rrl.registry import UserError
from rrl.rollout.data import Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.rollout.slots import Slots
from rrl.run import saving
from rrl.store import checkpoint, results


class Faulty(EnvFactory):
    """Episodes of 5 steps; from a step on, counted from when it was made, a number goes wrong."""

    class Config(EnvFactory.Config):
        """What goes wrong."""

        what: str = "reward"
        """`reward` or `state`."""
        value: str = "1.0"
        """What it is then, as text: nan is no setting."""
        after: int = 0
        """Good steps before."""

    name, horizon, cameras = "faulty", 5, ()

    def make_one(self, frames):
        return FaultySim(self.config)


class FaultySim(gymnasium.Env):
    """A position that the actions move."""

    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, config):
        self.config, self.made = config, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.t = self.np_random.uniform(-1, 1), 0
        return self.observe(), {}

    def observe(self):
        broken = self.config.what == "state" and self.made > self.config.after
        return {"state": np.array([self.at, float(self.config.value) if broken else self.t], np.float32)}

    def step(self, action):
        self.at, self.t, self.made = self.at + float(np.clip(action[0], -1, 1)), self.t + 1, self.made + 1
        broken = self.config.what == "reward" and self.made > self.config.after
        return self.observe(), float(self.config.value) if broken else -abs(self.at), False, self.t == 5, {}

    def get_state(self):
        return {"at": np.array([self.at, self.t, self.made])}

    def set_state(self, state):
        self.at, self.t, _ = state["at"].tolist()
        return self.observe()


class Unsound(WantsEpisodes):
    """Its weights become NaN in its second update, without a word."""

    class Config(WantsEpisodes.Config):
        """Made up."""

    def warm_start(self, demos, progress=None):
        return {"made_up/unmeasured": math.nan}

    def update(self, rollout):
        self.updates = getattr(self, "updates", 0) + 1
        if self.updates == 2:
            with torch.no_grad():
                self.weights[7] = math.nan
        return {"made_up/unmeasured": math.nan}


GIN = """
Experiment.env = @Faulty()
Experiment.encoder = @State()
Experiment.agent = @{agent}()
Experiment.evaluators = ({evaluators})
Experiment.iterations = {iterations}
Experiment.num_envs = 1
Experiment.workers = 0
Experiment.threads = 1
Experiment.device = 'cpu'
Experiment.log_every = 10
EpisodeReturn.episodes = 1
"""
SMALL = {
    "NPG": ("NPG.trajectories = 2", "NPG.policy_hidden = (4,)", "NPG.value_hidden = (4,)", "NPG.value_batch = 2"),
    "SAC": ("SAC.init_steps = 2", "SAC.batch = 4", "SAC.hidden = (4,)", "SAC.replay = 100"),
    "Unsound": (),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to run in, with the faulty environment and the unsound agent registered."""
    registry.names()
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    registry.register(Faulty)
    registry.register(Unsound)
    monkeypatch.chdir(prepared(tmp_path))
    return tmp_path


def call(*arguments, code=0):
    done = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def train(here, agent, *settings, code=2, evaluators="@EpisodeReturn(),", iterations=2):
    (here / "run.gin").write_text(GIN.format(agent=agent, evaluators=evaluators, iterations=iterations))
    sets = [part for text in (*SMALL[agent], *settings) for part in ("--set", text)]
    return call("run", "run.gin", *sets, code=code)


def run_folder(here):
    (path,) = here.glob("runs/*/run.json")
    return path.parent


def kept(here):
    """The update of the checkpoint; all files are good, and the run says that it failed."""
    folder = run_folder(here)
    status, reason = results.read_status(folder)
    assert status == "failed" and reason.startswith("UserError: ")
    for path in folder.glob("*.safetensors"):
        checkpoint.load_file(path)  # refuses NaN
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    return checkpoint.load_values(folder / "checkpoint.safetensors")["iteration"]


# ---- what environments give


@pytest.mark.parametrize(
    ("agent", "what", "value", "said"),
    [
        ("NPG", "reward", "nan", "the reward is nan"),
        ("NPG", "reward", "1e300", "the reward is 1e+300"),
        ("SAC", "reward", "nan", "the reward is nan"),
        ("SAC", "state", "inf", "state[1] is inf"),
    ],
)
def test_a_wrong_number_is_told_with_step_and_seed_and_the_good_checkpoint_stays(here, agent, what, value, said):
    wrong = (f"Faulty.what = '{what}'", f"Faulty.value = '{value}'")
    # An evaluation (5 steps), an iteration (10), another evaluation, and 3 steps of the next iteration.
    output = train(here, agent, *wrong, "Faulty.after = 22")
    assert "Traceback" not in output
    lines = output.split("error: ")[1].splitlines()
    seeds = [e.seed for e in episodes(4, seed=0, stream=Stream.TRAIN, iteration=1 if agent == "NPG" else 0)]
    seed = seeds[0] if agent == "NPG" else seeds[2]
    assert lines[0].startswith(f"faulty, step 3 of the episode with seed {seed}: {said}")
    assert "mend the environment" in lines[1]
    assert "stay as they were after update 1: `rrl resume` begins there" in lines[2]
    assert kept(here) == 1
    if what == "state":  # what is resumed is good: this environment counts anew, so it comes to the end
        assert "resumed after 1 updates" in call("resume", run_folder(here).name)
        assert results.read_status(run_folder(here)) == ("finished", "")


def test_a_replay_says_which_recorded_episode():
    script = episodes(1, seed=3, stream=Stream.DEMOS)[0]
    script = type(script)(7, actions=np.zeros((4, 1), np.float32))
    envs = WorkerVectorEnv(Faulty(Faulty.Config(value="nan", after=2)), 2, None, 0)
    agent = make(state_dim=2, action_dim=1, init_steps=0)
    with pytest.raises(UserError, match="faulty, step 3 of the replay of episode 7: the reward is nan"):
        Collector(envs).collect(agent, [script])
    envs.close()


def test_actions_that_are_no_numbers_never_reach_an_environment():
    envs = WorkerVectorEnv(Faulty(Faulty.Config()), 1, None, 0)
    agent = make(state_dim=2, action_dim=1, init_steps=0)
    with torch.no_grad():
        next(agent.actor.parameters())[0, 0] = math.nan
    with pytest.raises(UserError, match=r"the reset of the episode .* action\[0\], which SAC chose then, is nan"):
        Collector(envs).collect(agent, episodes(1, seed=0, stream=Stream.EVAL))
    envs.close()


# ---- what encoders give


def test_features_that_are_no_numbers_name_encoder_and_place():
    encoder = Colours()
    encoder.gain[1] = math.inf
    agent = make(encoder=encoder)
    slots, black = Slots(2, FrameRequest(4, 4)), np.zeros((2, 4, 4, 3), np.uint8)
    seen = {"frames": black, "state": np.zeros((2, 3), np.float32)}
    fresh = np.array([False, True])
    with pytest.raises(UserError, match=r"^slot 1: feature 1 of Colours \(fp32 by torch\) is nan\n.*precision"):
        slots.look(agent, seen, fresh, ~fresh & False, "slot {}".format)
    slots.look(agent, seen, fresh & False, fresh & False)  # idle slots' pictures mean nothing


# ---- learning that diverges


@pytest.mark.parametrize(
    ("agent", "settings", "said"),
    [
        (
            "NPG",
            ("NPG.value_lr = 1e30",),
            r"in update 1/2: value\S+ holds nan .*, value/error_after is nan, returns were 5 to 5",
        ),
        ("SAC", ("SAC.critic_lr = 1e30",), r"in gradient update \d+: sac/\w+ is (nan|inf)"),
        ("Unsound", (), r"in update 2/2: weights holds nan \(1 of 1000 numbers\), made_up/unmeasured is nan"),
    ],
)
def test_divergence_is_told_with_after_what(here, agent, settings, said):
    output = train(here, agent, *settings)
    assert "Traceback" not in output
    assert re.search(rf"error: {agent} diverged {said}", output), output
    assert f"start again with a lower {agent if SMALL[agent] else 'learning rate'}" in output
    after = int(agent == "Unsound")
    assert f"stay as they were after {'update 1' if after else 'the warm start'}: `rrl resume`" in output
    assert kept(here) == after
    assert ("note: made_up/unmeasured is nan" in output) == (agent == "Unsound")


def test_cloning_that_diverges_leaves_no_checkpoint(here):
    sets = (
        "DAPG.bc_lr = 1e30",
        "DemoSet.episodes = 1",
        "DAPG.policy_hidden = (8,)",
        "Experiment.workers = 0",
        "Experiment.num_envs = 1",
    )
    arguments = [part for text in sets for part in ("--set", text)]
    output = call("run", "adroit_door_state", *arguments, code=2)
    assert (
        "error: DAPG diverged in the warm start, step " in output
        and "of 30 (epoch 1 of 5): cloning's loss is" in output
    )
    assert "start again with a lower DAPG.bc_lr (it is 1e+30)" in output
    assert not list(run_folder(here).glob("*.safetensors*"))
    assert results.read_status(run_folder(here))[0] == "failed"


# ---- files


def test_no_file_with_nan_is_written_or_read(tmp_path):
    path, good = tmp_path / "a.safetensors", {"w": torch.ones(3), "mask": torch.tensor([-math.inf, 0.0])}
    checkpoint.save_file(path, good, {"rows": 1})
    for value, said in ((math.nan, "nan"), (math.inf, "inf")):
        bad = good | {"w": torch.tensor([1.0, value, 2.0])}
        with pytest.raises(UserError, match=rf"is not written: w holds {said} \(1 of 3 numbers\)"):
            checkpoint.save_file(path, bad, {"rows": 2})
        assert checkpoint.load_file(path)[1] == {"rows": 1}


def test_a_checkpoint_of_an_earlier_version_with_nan_is_told(tmp_path):
    values = json.dumps({"identity": {}, "rows": 1})
    data = save({"policy.w": torch.tensor([math.nan])}, {"format": "rrl", "values": values})
    (tmp_path / saving.CHECKPOINT).write_bytes(data)
    with pytest.raises(UserError, match=r"of a training that diverged: policy.w holds nan(.|\n)*best_policy"):
        saving.last(tmp_path, {})
