"""`rrl demos`: record demonstrations with a policy, describe a set, replay and verify one."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rrl import demos, policies, registry
from rrl.demos import Demos
from rrl.envs.base import EnvFactory
from rrl.evaluators.success import in_words
from rrl.registry import UserError, build
from rrl.rollout import Collector, Obs, Stream, episodes

Say = Callable[[str], None]


class NoPolicy:
    """Stands where a replay needs a policy: keeps the state vector, never acts."""

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def observe(self, obs: Obs) -> NDArray[np.float32]:
        """The state vector."""
        return obs.state.copy()

    def act(self, observed: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Zeros; a replay puts recorded actions in their place."""
        return np.zeros((len(observed), self.action_dim), np.float32)


def experts() -> dict[str, Path]:
    """Name -> policy file of the experts that come with the package, such as `adroit_door_expert`."""
    folder = Path(str(files("rrl"))) / "data" / "experts"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def make(policy: Path, out: Path, count: int, seed: int, tries: int, say: Say) -> None:
    """Record `count` successful episodes (of at most `tries`) and write them; see `rrl demos make`."""
    if tries < count:
        raise UserError(f"{count} successful episodes can't come from {tries} tries; raise --tries")
    out = demos.free(out)
    if str(policy) not in experts() and not policy.exists():
        raise UserError(
            f"there is no file {policy}, nor a shipped expert of that name ({', '.join(experts())}); "
            "runs write policy.safetensors and best_policy.safetensors"
        )
    policy = experts().get(str(policy), policy)
    config, agent, values = policies.load(policy)
    env: EnvFactory = build(config.env)
    envs = env.make(min(config.num_envs, tries), config.encoder.frames(), config.workers or 0)
    try:
        todo = episodes(tries, seed=seed, stream=Stream.DEMOS)
        facts = {
            **env.facts(),
            "policy": policy.name,
            "policy_facts": {k: v for k, v in values.items() if k != "config"},
            "actions": "mean",
            "seed": seed,
        }
        made = demos.record(Collector(envs), agent, todo, flag=env.flags[0], wanted=count, facts=facts)
    finally:
        envs.close()
    made.save(out)
    rates = ", ".join(f"{k} {100 * v:.0f} %" for k, v in made.facts["policy_success"].items())
    say(f"{out}: {len(made)} episodes, {len(made.actions)} steps (the policy over {tries} episodes: {rates})")


def info(source: str | None, say: Say) -> None:
    """Describe one set, or list the shipped ones."""
    if source is None:
        for name, path in demos.shipped().items():
            say(f"{name}  {len(demos.load(path))} episodes  {path.stat().st_size / 1e6:.2f} MB")
        return
    made = _load(source)
    say(
        f"{len(made)} episodes of {made.lengths.min()} to {made.lengths.max()} steps, "
        f"{len(made.actions)} in all"
    )
    say(json.dumps(made.facts, indent=2))


def verify(source: str, say: Say) -> bool:
    """Replay by actions (do the successes come out again? how far do states drift?) and by states.

    Returns whether at least as many episodes succeed as were recorded.
    """
    made = _load(source)
    env = _environment(made)
    envs = env.make(len(made), None, 0)
    drift: list[list[float]] = [[] for _ in range(len(made))]
    recorded = [made.states(i)[0] for i in range(len(made))]

    def compare(running: NDArray[np.int64], t: NDArray[np.int64]) -> None:
        now = envs.call("physics")
        for slot, i in enumerate(running):
            if i >= 0:
                drift[i].append(float(np.abs(now[slot][0] - recorded[i][t[slot]]).max()))

    try:
        scripts = [made.script(i) for i in range(len(made))]
        rollout = Collector(envs).collect(NoPolicy(envs.action_dim), scripts, each_step=compare)
        ok = True
        for flag in rollout.flags:
            then = int(made.success(flag, env.success_steps).sum())
            now = int(rollout.success(flag).sum())
            say(f"replay by actions: {in_words([rollout], flag)}; recorded {then}")
            ok &= now >= then
        last = np.array([each[-1] for each in drift])
        worst = max(max(each) for each in drift)
        say(
            f"positions differ from the recorded ones by at most {worst:.2g}, "
            f"at the end by {np.median(last):.2g} (median)"
        )
        shown = demos.playback(Collector(envs), NoPolicy(envs.action_dim), made)
        apart = np.abs(shown.obs - rollout.obs).max(axis=1)
        say(
            "playback by states: the task's state observation differs from the replay's by at most "
            f"{apart.max():.2g}, median over steps {np.median(apart):.2g}"
        )
    finally:
        envs.close()
    return bool(ok)


def _environment(made: Demos) -> EnvFactory:
    """The environment a set was recorded in, with its task's state observation."""
    facts = made.facts
    family, _, task = str(facts["env"]).partition("_")
    try:
        cls = registry.get(family.capitalize())
        config = cls.Config.model_validate({"task": task, "protocol": facts["protocol"], "state": "task"})
    except (KeyError, ValueError) as error:
        raise UserError(f"this version of rrl has no environment {facts.get('env')}") from error
    env: EnvFactory = build(config)
    return env


def _load(source: str) -> Demos:
    return demos.load(demos.shipped().get(source, Path(source)))
