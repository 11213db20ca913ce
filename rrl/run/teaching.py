"""Agents that learn from the actions of another policy get it here: in training, from its file."""

from __future__ import annotations

from rrl.agents.base import Agent
from rrl.envs.base import EnvFactory
from rrl.registry import UserError, build
from rrl.run import policies
from rrl.run.experiment import Experiment


def teach(agent: Agent, experiment: Experiment) -> None:
    """Give an agent of this run its teacher, if its settings name one."""
    file = experiment.config.agent.teacher_file()
    if file is None:
        return
    teacher = _teacher(file, experiment)
    agent.teacher = lambda states: teacher.act(states, None)  # no attribute of the module: files don't hold it


def check(experiment: Experiment) -> None:
    """UserError if the settings name a teacher that can't be had, or is of another task or sees another state than the
    environment's privileged one."""
    file = experiment.config.agent.teacher_file()
    if file is not None:
        _teacher(file, experiment)


def _teacher(file: str, experiment: Experiment) -> Agent:
    config, teacher, _ = policies.load(policies.find(file))
    theirs: EnvFactory = build(config.env)
    ours, name = experiment.env, experiment.config.agent.component.__name__
    if config.encoder.frames() is not None:
        raise UserError(f"{name}.teacher: {file} sees pictures; a teacher sees the task's state alone")
    sees = [(part.name, part.size) for part in theirs.parts]
    told = [(part.name, part.size) for part in ours.parts if part.privileged]
    if theirs.name != ours.name or sees != told:
        kinds = (
            f"{env} with {', '.join(f'{part} ({size})' for part, size in parts) or 'no state'}"
            for env, parts in ((theirs.name, sees), (ours.name, told))
        )
        raise UserError("{}.teacher: {} is a policy of {}; this run's environment is {}".format(name, file, *kinds))
    return teacher
