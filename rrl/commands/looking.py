"""`rrl look`: what of their pictures frozen networks' features, or a policy's actions, answer to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rrl.commands.policies import locate
from rrl.commands.typed import is_gin
from rrl.config import ginfile
from rrl.demos.record import Noisy
from rrl.demos.replay import DemoSet, NoPolicy
from rrl.encoders.base import Encoder
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators import grad_cam, heat
from rrl.evaluators.heat import Action
from rrl.machine.console import Display
from rrl.machine.paths import new_file
from rrl.registry import UserError, build
from rrl.rollout.data import Episode, Policy, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.run import policies

WANDERING = 0.5
"""Standard deviation of random actions."""


class Subject(NamedTuple):
    """What one word of the user's means: an encoder, and an episode to look at."""

    env: EnvFactory
    encoder: Encoder
    frames: FrameRequest | None
    policy: Policy
    episode: Episode
    action: Action | None
    """None: the features are explained."""
    label: tuple[str, str, str]


def show(
    subjects: Sequence[str],
    overrides: Sequence[str],
    out: Path,
    display: Display,
    *,
    count: int,
    of: grad_cam.Of,
    side: int,
) -> None:
    """Draw a sheet with a block for each gin file, policy or run, side by side."""
    if out.suffix != ".png":
        raise UserError(f"a sheet is a .png; got {out}")
    new_file(out)
    if why := grad_cam.missing():
        raise UserError(why)
    blocks = []
    for source, subject in [(source, _subject_of(source, overrides, of)) for source in subjects]:
        frames = subject.frames
        subject.env.probe(frames)
        display.phase(source, subject.env.horizon)
        with closing(WorkerVectorEnv(subject.env, 1, frames, 0)) as envs:
            shots = grad_cam.taken(Collector(envs), subject.policy, subject.episode, count, display.advance)
        maps = heat.heat(subject.encoder, shots.frames, shots.state, subject.action)
        blocks.append(grad_cam.block(shots, maps, subject.label, side))
        display.line(f"{source}: {', '.join(subject.label)}; steps {shots.t[0]} to {shots.t[-1]}")
    grad_cam.draw(blocks, out)
    display.line(f"{grad_cam.explained(of)}: {out}")


def _subject_of(source: str, overrides: Sequence[str], of: grad_cam.Of) -> Subject:
    if source.removesuffix(".gin") in ginfile.fragments():
        raise UserError(
            f"{source} is a part of runs, and `rrl look` draws whole ones side by side, it lays none over another: for "
            'another encoder, --set "Experiment.encoder = @Name()"'
        )
    # Some shipped policies are called as the file of their run.
    if is_gin(source) and not (of == "action" and source in policies.shipped()):
        return _of_file(source, overrides, of)
    return _of_policy(source, overrides, of)


def _of_file(source: str, overrides: Sequence[str], of: grad_cam.Of) -> Subject:
    """The first demonstration of a gin file's run; where it has none, an episode of random actions."""
    if of == "action":
        raise UserError(
            f"{source} is a gin file, which has no policy yet: name a run or a policy file, or leave --of away"
        )
    config: Any = ginfile.load(source, overrides)
    env: EnvFactory = build(config.env)
    actions = env.make_one(None).action_space.shape[0]
    still = NoPolicy(actions)
    if config.demos is not None:
        demos: DemoSet = build(config.demos, env=env)
        return _subject(config, still, demos.demos.script(0), "demonstration")
    (episode,) = episodes(1, seed=config.seed, stream=Stream.VIDEO, noise=(env.horizon, actions))
    return _subject(config, Noisy(still, WANDERING), episode, "random actions")


def _of_policy(source: str, overrides: Sequence[str], of: grad_cam.Of) -> Subject:
    """An episode of a policy, or of a run's last one."""
    if overrides:
        raise UserError(f"--set is for gin files; {source} is a policy or a run")
    try:
        path = locate(source, best=False)
    except UserError as error:
        near = " or ".join(ginfile.near(source))
        raise UserError(f"{error}" + (f"\n  as a gin file: did you mean {near}?" if near else "")) from error
    config, agent, _ = policies.load(path)
    (episode,) = episodes(1, seed=config.seed, stream=Stream.VIDEO)
    action = heat.mean_action(agent) if of == "action" else None
    return _subject(config, agent, episode, config.agent.label(), action)


def _subject(config: Any, policy: Policy, episode: Episode, who: str, action: Action | None = None) -> Subject:
    if why := grad_cam.unfit(config.encoder):
        raise UserError(f"Grad-CAM: {why}")
    env: EnvFactory = build(config.env)
    encoder: Encoder = build(config.encoder, cameras=len(env.cameras))
    label = env.name, config.encoder.label(), who
    return Subject(env, encoder, config.encoder.frames(), policy, episode, action, label)
