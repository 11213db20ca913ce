"""`rrl export --hub`: a folder for the Hugging Face Hub, with a model card. Nothing here reaches the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl.commands.inspection import in_words
from rrl.commands.policies import Say, packed, policy_of, run_of
from rrl.commands.typed import quoted
from rrl.config import ginfile
from rrl.envs.base import EnvFactory
from rrl.machine.paths import new_folder, writable
from rrl.registry import build
from rrl.run import policies
from rrl.run.saving import POLICY
from rrl.score import Score
from rrl.statistics import wilson
from rrl.store import checkpoint, files
from rrl.store.results import Result, Setup

CARD, CONFIG, CURVE = "README.md", "config.gin", "curve.png"
FILM = "replay.mp4"
"""The name under which the Hub's pages show a film."""
NAMED = ("env", "cameras", "horizon")
"""Facts of an environment that the card says in other places."""


def export(source: str, folder: Path, say: Say) -> None:
    """Write the folder of a run's last policy. UserError if there is something in it already."""
    empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    if empty and folder.resolve() != Path.cwd():
        writable(folder)
    else:
        new_folder(folder)
    run = run_of(source)
    tensors, values, needed = packed(run, say, best=False)
    config: Any = policies.config_of(policy_of(run, best=False))
    for file in ginfile.files_of(config):  # by name alone: beside the policy they are found, and folders are private
        if policies.FILE + file.name not in tensors:
            values["config"] = values["config"].replace(repr(str(file)), repr(file.name))
    curve, film = run.folder / "learning_curve.png", run.videos[-1:]
    with files.making(folder) as part:
        checkpoint.save_file(part / POLICY, tensors, values)
        files.write_text(part / CONFIG, values["config"])
        for original, copy in ((curve, CURVE), *((path, FILM) for path in film)):
            if original.is_file():
                shutil.copyfile(original, part / copy)
        there = [path.name for path in part.iterdir()]
        text = "\n".join(card(run, config, values, folder.resolve().name, there, [path.name for path in needed]))
        files.write_text(part / CARD, text + "\n")
    say(f"{folder}: {', '.join(sorted((CARD, *there)))}")
    say(f"choose a licence at the head of {folder / CARD}; then, with huggingface_hub's command (before 0.34 it was")
    say("huggingface-cli):")
    say(f"  hf upload USER/{folder.resolve().name} {quoted(str(folder))}")


@dataclass(frozen=True)
class Measured:
    """A number of the evaluation."""

    action: str
    """`mean action`, `sampled action`, or the kind of a control, such as `blind`."""
    score: Score
    value: float
    """Success in percent, or the mean return."""
    interval: tuple[float, float]
    """95 %: Wilson's of a success, of a return 1.96 standard errors."""
    episodes: int


def measured(setup: Setup, metrics: Mapping[str, float], space: str) -> Iterator[Measured]:
    """What a row of metrics says under `space`, `final` or `eval`: each flag, or the return, of each kind of action."""
    scores = [Score(flag, counted=True) for flag in setup.flags] or [setup.score]
    kinds = dict.fromkeys(name.split("/")[1].removesuffix("episodes") for name in metrics if name.endswith("_episodes"))
    ways = [("mean action", "", ""), ("sampled action", "", "_sampled")]
    for action, start, end in (*ways, *((kind.rstrip("_"), kind, "") for kind in kinds)):
        for score in scores:
            name, count = f"{space}/{start}{score.name}", int(metrics.get(f"{space}/{start}episodes{end}", 0))
            if not count or (value := metrics.get(name + end)) is None:
                continue
            if score.counted:
                low, high = wilson(round(value * count / 100), count)
                interval = 100 * low, 100 * high
            else:
                half = 1.96 * metrics.get(f"{name}_std{end}", 0.0) / count**0.5
                interval = value - half, value + half
            yield Measured(action, score, value, interval, count)


def evaluation(run: Result, updates: int) -> tuple[str, list[Measured]]:
    """Which evaluation measured the policy after so many updates, and its numbers: the final one, or else what was
    measured after the last update; empty: none."""
    final = {name: value for row in run.rows for name, value in row.metrics.items() if name.startswith("final/")}
    if numbers := list(measured(run, final, "final")):
        return "the run's final evaluation", numbers
    last = next((row.metrics for row in reversed(run.rows) if row.metrics.get("iteration", 0) == updates), {})
    return "the run's last evaluation", list(measured(run, last, "eval"))


def card(
    run: Result, config: Any, values: Mapping[str, Any], name: str, there: list[str], needed: list[str]
) -> Iterator[str]:
    """Lines of the model card of a policy in a folder of this name, in which these files are `there`; `needed`: files
    that it can't act without and that aren't."""
    env: EnvFactory = build(config.env)
    which, numbers = evaluation(run, values["iteration"])
    title = f"{env.name}: {config.agent.label()} on {config.encoder.label()}"
    yield from front_matter(env, title, numbers)
    yield f"\n# {title}\n"
    yield f"A policy trained with rrl for {values['steps']:,} environment steps ({values['iteration']} updates), with"
    yield f"the seed {config.seed}. [{CONFIG}]({CONFIG}) has all settings, and so has [{POLICY}]({POLICY})."
    yield "\n## Task and protocol\n"
    yield f"- task: {env.name}" + "".join(f", {name} {value}" for name, value in _facts(env))
    yield f"- an episode: {env.horizon:,} steps; {_judged(env.score)}"
    if "demos" in values:
        facts = [text for name in ("origin", "episodes") if (text := run.fact("demos", name))]
        yield f"- demonstrations: {Path(values['demos']).name}" + (f" ({', '.join(facts)} episodes)" if facts else "")
    yield f"- made with: {', '.join(f'{name} {text}' for name, text in _versions(run, values))}"
    yield "\n## What the policy sees\n"
    yield from _sees(env, config, values)
    yield "\n## Numbers\n"
    if numbers:
        yield f"Of {which}:\n\n| action | score | | 95 % interval | episodes |\n| --- | --- | --- | --- | --- |"
        for row in numbers:
            low, high = row.interval
            cells = row.action, row.score.name, row.score.text(row.value), f"{low:.1f} to {high:.1f}", str(row.episodes)
            yield f"| {' | '.join(cells)} |"
        yield "\nThe interval is of the episodes. It is one training: another seed may come out otherwise."
    else:
        yield "The run measured nothing of this policy."
    if CURVE in there:
        yield f"\n![The learning curve]({CURVE})"
    if FILM in there:
        yield f"\n[{FILM}]({FILM}) is the run's last film."
    yield "\n## Use\n"
    yield f"    hf download USER/{name} --local-dir {name}\n    rrl eval {name}\n    rrl play {name} --out film.mp4"
    yield f'\nIn Python:\n\n    import rrl\n    policy = rrl.load_policy("{name}")\n    env = policy.make_env()'
    yield "    obs, info = env.reset(seed=0)\n    obs, reward, terminated, truncated, info = env.step(policy.act(obs))"
    parts = (config.env, config.encoder, config.agent)
    modules = {part.component.__module__.partition(".")[0] for part in parts} - {"rrl"}
    if needs := [*(f"the module {module}" for module in sorted(modules)), *needed]:
        yield f"\nBeside rrl it needs: {', '.join(needs)}."


def front_matter(env: EnvFactory, title: str, numbers: list[Measured]) -> Iterator[str]:
    """What the Hub reads: YAML, whose strings are JSON's."""
    task = json.dumps(env.name, ensure_ascii=False)
    yield "---\nlibrary_name: rrl\npipeline_tag: reinforcement-learning"
    yield "# Choose a licence (https://huggingface.co/docs/hub/repositories-licenses); its line begins with `license`:"
    yield "# license: apache-2.0"
    yield f"tags:\n- reinforcement-learning\n- robotics\n- rrl\n- {task}"
    if numbers:
        yield f"model-index:\n- name: {json.dumps(title, ensure_ascii=False)}\n  results:"
        yield "  - task:\n      type: reinforcement-learning\n      name: reinforcement-learning"
        yield f"    dataset:\n      name: {task}\n      type: {task}\n    metrics:"
        for row in numbers:
            said = f"{row.score.axis}, {row.action}, {row.episodes} episodes"
            yield f"    - type: {row.score.name}\n      value: {row.value:.2f}\n      name: {json.dumps(said)}"
    yield "---"


def _facts(env: EnvFactory) -> Iterator[tuple[str, str]]:
    """What else decides the task, without versions; of a file its name."""
    for name, value in env.facts().items():
        if name not in (*NAMED, *env.packages):
            yield name, Path(value).name if Path(value).is_absolute() else value


def _judged(score: Score) -> str:
    return f"a success: `{score.name}` in more than {score.steps} of them" if score.counted else "judged by the return"


def _versions(run: Result, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of rrl, of libraries and of plugins' code."""
    yield "rrl", run.tags.get("rrl", "?")
    for name, text in values.get("made_with", {}).items():
        if not name.startswith("environment."):
            yield name, text


def _sees(env: EnvFactory, config: Any, values: Mapping[str, Any]) -> Iterator[str]:
    """Its pictures, what makes features of them, its state vector."""
    if (frames := config.encoder.frames()) is not None:
        yield f"- pictures: {in_words(frames)}, {', '.join(env.cameras)}"
        if config.encoder.component.trainable:
            yield f"- {config.encoder.label()}: learned with the policy, and in its file"
        else:
            yield f"- {config.encoder.label()}, frozen: weights `{values.get('weights', '?')}`, which are not in the"
            yield "  policy's file; `rrl weights list` says where published ones come from"
    else:
        yield "- no pictures"
    blind = ", which say nothing of the task's objects" if env.blind_state and env.has_state else ""
    yield f"- a state vector of {values['state_dim'] - env.privileged} numbers{blind}"
    if env.privileged:
        yield f"- in training its critics saw {env.privileged} numbers of state that it doesn't see"
    if faults := env.at_fault():
        yield f"- of its joints: {', '.join(faults)}"
