"""What rrl counts on: a named number of a policy, the same for the same episodes."""

from pathlib import Path

from my_evaluator import MyEvaluator

import rrl
from rrl.config import ginfile
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.base import Context
from rrl.rollout.episodes import Collector


def test_it_yields_its_number(tmp_path):
    expert = rrl.load_policy("adroit_door_expert")  # it comes with rrl
    envs = WorkerVectorEnv(expert.env, 2, None, 0)
    said = []
    context = Context(
        collector=Collector(envs),
        frames=None,
        encoder=expert.config.encoder.label(),
        seed=0,
        folder=tmp_path,
        iteration=0,
        say=said.append,
        progress=lambda steps: None,
        warm_started=lambda encoder, collector, count: [],
    )
    evaluator = MyEvaluator(MyEvaluator.Config(episodes=2))
    first, second = (dict(evaluator.run(expert.agent, expert.env, context)) for _ in range(2))
    envs.close()
    assert 0 < first["action_change"] < 2
    assert second == first
    assert said


def test_its_gin_file_binds_it():
    asked = ginfile.bound(str(Path(__file__).with_name("my_evaluator.gin")), "evaluators")
    assert [type(config) for config in asked] == [MyEvaluator.Config]
