"""Faults of the sensors of joints (paper figure 8 has noise): what becomes of a policy that learnt without them.

One fault is active at a time, beside those that the run's own environment has. Each, and none, is tried in the very
same episodes, which differ only by what the policy makes of its readings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Annotated, Any, Literal

from pydantic import Field

from rrl.envs.base import EnvFactory
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.base import Context, Episodes, Evaluator
from rrl.evaluators.paired import NOMINAL, Paired
from rrl.registry import Count, Mistake, Parts, Positive, UserError, build, register
from rrl.rollout.data import Policy, Rollout, Stream, episodes

CLEAN = "clean"
"""The condition without any fault, of a run whose own environment has some."""


@register
class SensorFaults(Evaluator):
    """Noise on joint angles, a joint that is stuck or dead, delayed angles, each in the same episodes as without.

    Of a run that was trained with such faults the others are compared with its sensors as trained, and one more
    condition, `clean`, is without any. A fault takes the place of the run's own of its kind (noise, stuck, dead,
    delay); the run's own of other kinds stay.
    """

    class Config(Evaluator.Config):
        """Which faults, and in how many episodes."""

        when: Literal["always", "end"] = "end"
        """'end': at the end; 'always': after the warm start too, then as `Experiment.eval_every` says."""
        noise: tuple[Positive, ...] = (0.02, 0.05, 0.1)
        """Sizes of noise, as the environment means them; each is tried in each kind (paper figure 8: 0.02)."""
        noise_kinds: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
        """Kinds of noise, as the environment calls them: Adroit has 'gaussian noise', 'multiplicative noise' and
        'uniform noise'. None: all."""
        stuck: tuple[str, ...] | None = None
        """Joints of which one at a time reads what it read as the episode began. None: some that the environment
        proposes (Adroit: one of the wrist, one of a finger, one of the thumb)."""
        dead: tuple[str, ...] | None = None
        """Joints of which one at a time reads 0. None: as for `stuck`."""
        delays: tuple[Count, ...] = (1, 2, 5)
        """Steps by which the angles are late."""
        episodes: Episodes = 75
        """Evaluation episodes of each condition, mean action."""

        def conditions(self, env: EnvFactory) -> dict[str, EnvFactory.Config]:
            """By name, the environment with each fault; first as it is, and if it has faults itself, without them.
            UserError for what it can't have."""
            found: dict[str, Any] = {NOMINAL: env.config}
            own, fields = own_faults(env), type(env.config).model_fields
            clean = [(CLEAN, {field: fields[field].default for field in own})] if own else []
            for name, settings in (*clean, *self._settings(env)):
                found[name] = env.config.of({**dict(env.config), **settings})  # type: ignore[attr-defined]
            return found

        def _settings(self, env: EnvFactory) -> Iterator[tuple[str, dict[str, Any]]]:
            faults = env.faults()
            if faults is None:
                raise UserError(f"{env.name} observes no joint angles, or has no settings of faults in them")
            kinds = tuple(faults.noise_kinds) if self.noise_kinds is None else self.noise_kinds
            for kind in kinds if faults.noise else ():
                if kind not in faults.noise_kinds:
                    known = ", ".join(map(repr, faults.noise_kinds))
                    raise UserError(f"{env.name} has no kind of noise {kind!r}, only {known}")
                for size in self.noise:
                    yield f"{kind} {size:g}", {faults.noise: size, **faults.noise_kinds[kind]}
            for fault, field, joints in (("stuck", faults.stuck, self.stuck), ("dead", faults.dead, self.dead)):
                if joints and not field:
                    raise UserError(f"{env.name} has no setting of {fault} joints")
                for joint in (faults.few if joints is None else joints) if field else ():
                    yield f"{fault} {joint}", {field: (joint,)}
            for steps in self.delays if faults.delay else ():
                yield f"delay {steps}", {faults.delay: steps}

        def steps(self, env: EnvFactory) -> int:
            """Of all conditions."""
            return len(self.conditions(env)) * self.episodes * env.horizon

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """An environment whose sensors can't fail, or not so."""
            yield from super().misfit(run)
            env: EnvFactory = build(run.env)
            name = self.component.__name__
            try:
                self.conditions(env)
            except UserError as error:
                with_joints = env.proprioception and env.faults() is None
                hint = (
                    f"it is for policies that act with `{env.proprioception}`"
                    if with_joints
                    else "change its settings or leave it out"
                )
                yield Mistake("evaluators", f"{name}: {error}", hint)

    config: Config

    def run(self, policy: Policy, env: EnvFactory, context: Context) -> Iterator[tuple[str, float]]:
        """Yields, under each condition, the score with its interval and the paired difference from the nominal one;
        writes `pictures/<iteration>_sensors.png` (scores), `.svg`, `.csv` (episodes) and `_drops.csv` (conditions)."""
        own = ", ".join(own_faults(env).values())
        tried = Paired("sensors", env.score, f"as trained ({own})" if own else NOMINAL)
        for name, config in self.config.conditions(env).items():
            yield from tried.add(name, self._rollout(policy, env, config, context))
            context.say(tried.in_words(name))
        stem = context.folder / "pictures" / f"{context.iteration:06d}_sensors"
        tried.write(stem, f"{env.name}, {context.encoder}, update {context.iteration}")
        context.say(tried.table())
        context.say(f"faults of sensors: {stem.with_suffix('.png')}")

    def _rollout(self, policy: Policy, env: EnvFactory, config: EnvFactory.Config, context: Context) -> Rollout:
        """The run's first evaluation episodes, in its own environments or in others with these settings."""
        todo = episodes(self.config.episodes, seed=context.seed, stream=Stream.EVAL)
        collector = context.collector
        if config == env.config:
            return collector.collect(policy, todo, progress=context.progress, keep=False)
        own = collector.envs
        with closing(WorkerVectorEnv(build(config), own.num_envs, context.frames, own.workers)) as envs:
            return collector.on(envs).collect(policy, todo, progress=context.progress, keep=False)


def own_faults(env: EnvFactory) -> dict[str, str]:
    """What is at fault in an environment itself, by setting, in words such as `gaussian noise 0.02`."""
    faults, config = env.faults(), dict(env.config)
    if faults is None:
        return {}
    fits = (name for name, chosen in faults.noise_kinds.items() if all(config[f] == v for f, v in chosen.items()))
    words = {faults.noise: next(fits, "noise"), faults.stuck: "stuck", faults.dead: "dead", faults.delay: "delay"}
    fields = type(env.config).model_fields
    at_fault = {field: word for field, word in words.items() if field and config[field] != fields[field].default}
    return {field: f"{word} {_value(config[field])}" for field, word in at_fault.items()}


def _value(value: Any) -> str:
    return " and ".join(value) if isinstance(value, tuple) else f"{value:g}"
