"""Estimates ask the parts: agents and evaluators of nobody's are estimated like our own."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rrl import registry
from rrl.agents import npg
from rrl.config import ginfile
from rrl.demos import DemoSet
from rrl.encoders.base import Inference
from rrl.encoders.state import State
from rrl.envs.adroit import Adroit
from rrl.envs.dmcontrol import DMControl
from rrl.evaluators.base import Evaluator
from rrl.registry import UserError
from rrl.rollout.steps import Stepper
from rrl.run import estimate, speed
from rrl.run.experiment import Experiment
from rrl.run.iteration import on_steps
from rrl.run.ledger import Ledger
from rrl.run.placement import resolve
from rrl.run.speed import Speed

SPEED = Speed(startup=5.0, sampling=1e-2, learning=1e-3, memory=10**9, width=20, files=10**6)
HORIZON, REPEAT = 125, 8


@pytest.fixture(autouse=True)
def agents(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The made-up agents, registered for one test."""
    registry.load_plugins()
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    from helpers import made_up_agents

    for agent in (made_up_agents.WantsEpisodes, made_up_agents.WantsSteps):
        registry.register(agent)
    return made_up_agents


def config(agent: Any, **settings: Any) -> Experiment.Config:
    """A run on cartpole: episodes of 125 steps, each of 8 environment steps."""
    env = DMControl.Config(domain="cartpole", task="swingup")
    return Experiment.Config.model_validate(
        {"env": env, "encoder": State.Config(), "agent": agent, "iterations": 10, "num_envs": 2, **settings}
    )


def seconds(training: int, other: int = 0) -> float:
    """By `SPEED`, of so many environment steps."""
    return 5.0 + 1e-2 * (training + other) + 1e-3 * training


def test_an_agent_that_wants_episodes(agents: Any) -> None:
    run = config(agents.WantsEpisodes.Config(batch_of_episodes=6))
    training = 10 * 6 * HORIZON * REPEAT
    assert estimate.training_steps(run) == training
    of_run = estimate.of_run(run, SPEED)
    assert of_run.seconds == pytest.approx(seconds(training))
    assert of_run.memory == 10**9 + estimate.TRACKING + estimate.ARRAYS * 20 * 6 * HORIZON
    assert of_run.disk == 2 * 10**6 + estimate.BESIDE


def test_an_agent_that_wants_steps(agents: Any) -> None:
    """A round is 64 steps of 2 environments, 1,024 environment steps: one makes an iteration of 1,000, two one
    of 1,025."""
    assert estimate.training_steps(config(agents.WantsSteps.Config(), log_every=1_000)) == 10 * 1024
    run = config(agents.WantsSteps.Config(album=500), log_every=1_025)
    assert estimate.training_steps(run) == 10 * 2048
    of_run = estimate.of_run(run, SPEED)
    assert of_run.seconds == pytest.approx(seconds(10 * 2048))
    assert of_run.memory == 10**9 + estimate.TRACKING + 500 * 20
    assert of_run.disk == 2 * 10**6 + estimate.BESIDE + 500 * 20
    all_kept = config(agents.WantsSteps.Config(album=10**6), log_every=1_025)
    assert estimate.of_run(all_kept, SPEED).disk == 2 * 10**6 + estimate.BESIDE + 10 * 2048 // REPEAT * 20


@pytest.mark.parametrize("log_every", [1, 1_000, 1_025])
def test_an_iteration_of_steps_is_as_long_as_the_loop_makes_it(agents: Any, log_every: int) -> None:
    run = config(agents.WantsSteps.Config(), log_every=log_every, iterations=1, workers=0)
    experiment = Experiment(run.model_copy(update={"device": "cpu"}))
    envs = experiment.make_envs()
    agent = experiment.make_agent(experiment.encoder, envs, Inference(), 0)
    stepper, ledger = Stepper(envs, agent.stack, 0), Ledger(experiment.encoder, None)
    _, steps = on_steps(agent, stepper, run.agent.wants(), log_every, ledger, lambda count: None)
    envs.close()
    assert steps == estimate.training_steps(run)
    assert set(agent.batches) == {64 * 2}


class Thrice(Evaluator):
    """Made up."""

    class Config(Evaluator.Config):
        """Made up."""

        rounds: int = 3

        def steps(self, env: Any) -> int:
            return self.rounds * env.horizon

    def run(self, *_: Any) -> Iterator[tuple[str, float]]:
        yield from ()


@pytest.mark.parametrize(("when", "times"), [("always", 1 + math.ceil(10 * 0.75)), ("end", 1)])
def test_evaluators_say_how_long_they_take(agents: Any, when: str, times: int) -> None:
    Thrice.Config.component = Thrice
    agent = agents.WantsEpisodes.Config(batch_of_episodes=3)
    run = config(agent, evaluators=(Thrice.Config(when=when),), eval_every=4 * HORIZON * REPEAT)
    training = 10 * 3 * HORIZON * REPEAT
    expected = seconds(training, times * 3 * HORIZON * REPEAT)
    assert estimate.of_run(run, SPEED).seconds == pytest.approx(expected)


def test_demonstrations_are_replayed_in_lockstep() -> None:
    run = Experiment.Config(
        env=Adroit.Config(task="door", state="task"),
        encoder=State.Config(),
        agent=npg.BC.Config(),
        demos=DemoSet.Config(episodes=1),
        iterations=0,
        num_envs=5,
    )
    demos = registry.build(run.demos, env=registry.build(run.env)).demos
    assert estimate.training_steps(run) == 0
    assert estimate.of_run(run, SPEED).seconds == pytest.approx(seconds(0, 5 * int(demos.lengths.max())))


def test_settings_that_cost_nothing_share_a_measurement(agents: Any) -> None:
    kinds = {estimate.kind(config(agents.WantsEpisodes.Config(patience=p), seed=p)) for p in (1, 2)}
    assert len(kinds) == 1
    assert estimate.kind(config(agents.WantsEpisodes.Config(width=2))) not in kinds


def measured(program: str, run: Any) -> Speed:
    """As the program prints it."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # this folder's helpers
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=ginfile.dumps(run), capture_output=True, text=True, env=env, check=True)
    return Speed(startup=0.0, **json.loads(done.stdout.splitlines()[-1]))


def test_demonstrations_in_every_batch_are_not_missed() -> None:
    """Of an agent that learns from them first, and is measured without them."""
    program = (
        "import json, sys\nfrom rrl.run import speed\nspeed.LEAST = 0.1\n"
        "print(json.dumps(speed._probe(sys.stdin.read())[0]))\n"
    )
    small = ["RLPD.hidden = (16,)", "RLPD.batch = 16", "RLPD.critics_first = 10_000_000", "Experiment.threads = 1"]
    speed = measured(program, resolve(ginfile.load("adroit_pen_rlpd_state", small)))
    assert speed.width == 4 * 45 and 0 < speed.learning < 1


def test_both_kinds_of_agents_are_measured(agents: Any, tmp_path: Any) -> None:
    """In processes of their own, which know the agents: real environments, real updates."""
    program = (
        "import json, sys\n"
        "from helpers import made_up_agents\n"
        "from rrl.run import speed\n"
        "speed.LEAST = 0.2\n"
        "print(json.dumps(speed._probe(sys.stdin.read())[0]))\n"
    )
    for agent in (agents.WantsEpisodes.Config(), agents.WantsSteps.Config()):
        speed = measured(program, resolve(config(agent, workers=0, device="cpu", threads=1)))
        assert speed.width == 5 * 4  # of cartpole's five numbers
        assert speed.files == 3 * 4 * agents.WEIGHTS
        assert 0 < speed.learning < speed.sampling < 0.01
        assert 5e7 < speed.memory < 5e9


def test_what_a_run_would_refuse_measuring_refuses_in_the_same_words() -> None:
    with pytest.raises(UserError, match=r"^<string>:1: Experiment\.env takes an environment") as told:
        speed.measure("Experiment.env = 3")
    assert "Traceback" not in str(told.value)


def test_what_learning_from_made_up_data_refuses_the_run_need_not() -> None:
    config = ginfile.load("adroit_door_state", ["DAPG.bc_lr = 1e30", "DAPG.bc_epochs = 1", "Experiment.workers = 0"])
    with pytest.raises(RuntimeError, match=r"DAPG\.bc_lr"):
        speed.measure(ginfile.dumps(resolve(config)))
