"""Visual distractors (paper section 5.4): what becomes of a policy when its pictures change and nothing else does.

One kind of change is active at a time, drawn anew for each episode. Every kind, and the nominal scene, is tried in the
very same episodes, so that what differs is due to the pictures alone: a policy without pictures does the same in all of
them, bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rrl.envs import scene
from rrl.envs.base import OPTIONAL, EnvFactory, FrameRequest
from rrl.envs.scene import Scene
from rrl.envs.vector import WorkerVectorEnv, has
from rrl.evaluators.base import Context, Episodes, Evaluator
from rrl.evaluators.paired import NOMINAL, Paired
from rrl.evaluators.video import captioned, film, tiles
from rrl.registry import Mistake, Parts, UserError, register
from rrl.rollout import effects
from rrl.rollout.data import Episode, Policy, Stream, episodes
from rrl.store import files

Severity = Annotated[float, Field(ge=0, le=scene.MOST)]
ACROSS = 6
"""Episodes of a row of the contact sheet."""
EVERY = 4
"""Steps from frame to frame of a video."""
SIDE = 160
"""Pixels of a picture on it."""


class Condition(NamedTuple):
    """Under which the episodes are tried."""

    kind: str
    severity: float

    @property
    def name(self) -> str:
        """For people: `light position`, `light position x2`; `nominal`."""
        return self.kind if self.severity == 1 or self.kind == NOMINAL else f"{self.kind} x{self.severity:g}"


@register
class VisualDistractors(Evaluator):
    """Moves the light, recolours the objects or adds one, each in the same episodes as without (paper section 5.4)."""

    class Config(Evaluator.Config):
        """Which changes, how strong, and in how many episodes."""

        when: Literal["always", "end"] = "end"
        """'end': at the end; 'always': after the warm start too, then as `Experiment.eval_every` says."""
        kinds: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
        """Kinds of change: the paper's are 'light position', 'light direction', 'object colour' and 'new object'; there
        are 'camera', 'field of view', 'surface', 'brightness', 'contrast', 'blur', 'patch' and 'jpeg' too. None: the
        paper's. What the environment can't show is told and left out."""
        severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = (1.0,)
        """How far: 0 is the nominal scene, 1 the paper's ranges, 2 twice as far."""
        objects: tuple[str, ...] | None = None
        """Names of the bodies, geoms and sites that are the task's objects, which change their colour and which a new
        object keeps away from. None: as the environment says; of any MuJoCo model, what moves and isn't driven, and
        what has a name that begins with `target` or `goal`."""
        episodes: Episodes = 75
        """Evaluation episodes under each kind and severity, mean action (paper: 75)."""
        films: Annotated[int, Field(ge=0, le=100)] = 1
        """Episodes of each condition that are filmed, `videos/<iteration>_<condition>.mp4`: the first ones of those
        evaluated. 0: none. Who sees nothing is filmed under the nominal one alone."""

        def conditions(self, kinds: Iterable[str]) -> list[Condition]:
            """The nominal one first."""
            changed = [Condition(kind, severity) for kind in kinds for severity in self.severities]
            return [Condition(NOMINAL, 0.0), *dict.fromkeys(changed)]

        def steps(self, env: EnvFactory) -> int:
            """Of all conditions."""
            return len(self.conditions(self.kinds or scene.KINDS)) * (self.episodes + self.films) * env.horizon

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """Kinds that nobody knows."""
            yield from super().misfit(run)
            for kind in self.kinds or ():
                if kind not in (*scene.KINDS, *scene.OTHERS):
                    known = ", ".join(map(repr, (*scene.KINDS, *scene.OTHERS)))
                    yield Mistake("evaluators", f"{self.component.__name__}.kinds has {kind!r}", f"it knows {known}")

    config: Config

    def run(self, policy: Policy, env: EnvFactory, context: Context) -> Iterator[tuple[str, float]]:
        """Yields, under each condition, the score with its interval and the paired difference from the nominal one;
        writes `pictures/<iteration>_distractors.png` (scores), `.svg`, `.csv` (episodes), `_drops.csv` (conditions) and
        `_sheet.png` (contact sheet). UserError if no kind can be shown."""
        kinds = self._kinds(env, context)
        stem = context.folder / "pictures" / f"{context.iteration:06d}_distractors"
        tried = Paired("distractors", env.score)
        rows: list[NDArray[np.uint8]] = []
        for condition in self.config.conditions(kinds):
            scenes = self._scenes(condition, context.seed)
            todo = episodes(self.config.episodes, seed=context.seed, stream=Stream.EVAL)
            todo = [dataclasses.replace(e, scene=s) for e, s in zip(todo, scenes, strict=True)]
            rollout = context.collector.collect(policy, todo, progress=context.progress, keep=False)
            rows += [_row(condition, context.collector.envs, todo)] if context.frames else []
            about = {"kind": condition.kind, "severity": condition.severity}
            yield from tried.add(condition.name, rollout, about, scene=[_told(scene) for scene in scenes])
            context.say(tried.in_words(condition.name))
            if self.config.films and (context.frames or condition.kind == NOMINAL):
                self._film(policy, env, context, condition, todo[: self.config.films])
        tried.write(stem, f"{env.name}, {context.encoder}, update {context.iteration}")
        context.say(tried.table())
        if rows:
            sheet = stem.with_name(f"{stem.name}_sheet.png")
            _write_sheet(rows, sheet)
            context.say(f"contact sheet: {sheet}")
        context.say(f"visual distractors: {stem.with_suffix('.png')}")

    def _film(
        self, policy: Policy, env: EnvFactory, context: Context, condition: Condition, todo: Sequence[Episode]
    ) -> None:
        label = f"{env.name}  {context.encoder}  {condition.name}"
        name = f"{context.iteration:06d}_{condition.name.replace(' ', '_')}"
        try:
            film(policy, env, context, todo, EVERY, label, name)
        except UserError as error:
            context.say(f"no video of {condition.name}: {error}")

    def _kinds(self, env: EnvFactory, context: Context) -> list[str]:
        wanted, refused = self.config.kinds or scene.KINDS, unshown(env, self.config.objects, context.frames)
        kinds = [kind for kind in wanted if kind not in refused]
        reasons = {kind: f"no visual change {kind!r}: {refused[kind]}" for kind in wanted if kind in refused}
        if not kinds:
            raise UserError(
                f"{env.name} shows nothing of {type(self).__name__}.kinds\n  " + "\n  ".join(reasons.values())
            )
        for told in reasons.values():
            context.say(f"note: {told}")
        return kinds

    def _scenes(self, condition: Condition, seed: int) -> list[Scene]:
        count = self.config.episodes
        if condition.kind == NOMINAL:
            return [Scene()] * count
        drawn = scene.draws(condition.kind, count, seed, condition.severity)
        return [dataclasses.replace(s, objects=self.config.objects) if s != Scene() else s for s in drawn]


def unshown(
    env: EnvFactory, objects: tuple[str, ...] | None = None, frames: FrameRequest | None = None
) -> dict[str, str]:
    """The kinds of change that an environment can't show, and why: in its model or, of those who ask for `frames`, in
    their pictures; effects on pictures go with any environment. UserError for names of objects that it lacks."""
    refused: dict[str, str] = {}
    with closing(env.make_one(frames)) as sim:
        nominal = sim.reset(seed=0)[0].get("frames")
        if objects is not None and has(sim, "dress"):
            sim.dress(Scene(objects=objects))  # type: ignore[attr-defined]
        for kind in (*scene.KINDS, *scene.OTHERS):
            drawn = dataclasses.replace(scene.draw(kind, np.random.default_rng(0)), objects=objects)
            if drawn.effect is not None:
                continue
            try:
                if not has(sim, "dress"):
                    raise UserError(f"its simulator cannot {OPTIONAL['dress']}")
                sim.dress(drawn)  # type: ignore[attr-defined]
                if nominal is not None and np.array_equal(sim.reset(seed=0)[0]["frames"], nominal):
                    raise UserError("it changes nothing that a camera of this environment shows")
            except UserError as error:
                refused[kind] = str(error)
    return refused


# What people look at


def _row(condition: Condition, envs: WorkerVectorEnv, todo: Sequence[Episode]) -> NDArray[np.uint8]:
    """How the first episodes begin, as the first camera shows it."""
    shown = todo[: min(ACROSS, envs.num_envs)]
    scenes = [episode.scene for episode in shown] + [Scene()] * (envs.num_envs - len(shown))
    seeds = [episode.seed for episode in shown] + [0] * (envs.num_envs - len(shown))
    mask = np.arange(envs.num_envs) < len(shown)
    drawn = [dataclasses.replace(each, effect=None) for each in scenes]
    dressed = any(each != Scene() for each in drawn)
    if dressed:
        envs.call_each("dress", [(each,) for each in drawn])
    seen, _ = envs.reset(seed=seeds, options={"reset_mask": mask})
    pictures = effects.seen(seen["frames"], scenes)[: len(shown), :, :, :3]
    strip = [tiles(picture, SIDE) for picture in pictures]
    if dressed:
        envs.call("dress", Scene())
    return captioned(np.concatenate(strip, axis=1), condition.name)


def _write_sheet(rows: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """A row for each condition: the first camera's picture of the same moments."""
    from PIL import Image

    with files.writing(path) as file:
        Image.fromarray(np.concatenate(rows)).save(file, format="png", optimize=True)


def _told(changes: Scene) -> str:
    own = dataclasses.asdict(Scene())
    return json.dumps({name: value for name, value in dataclasses.asdict(changes).items() if value != own[name]})
