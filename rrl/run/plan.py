"""What a run will do, said before it begins: what it trains on what, how long that takes, and where results go."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from rrl.agents.settings.base import Episodes
from rrl.machine.console import COLUMNS, duration, wrapped
from rrl.machine.cores import cores
from rrl.machine.processes import available_memory, in_bytes
from rrl.run import estimate, facts, fits
from rrl.run.experiment import Experiment
from rrl.run.speed import Fails, Speed
from rrl.store.results import ID

SHORT = 20_000
"""Environment steps of a run that is over, or has told its ETA, about as soon as its speed would be measured."""


def tell(
    experiment: Experiment, root: Path, budget: float | None, say: Callable[[str], None], *, measure: bool = False
) -> None:
    """Say the plan of a run in the folder `root`. How fast it is gets measured unless that is known already, or the run
    is `SHORT`; with `measure` in any case, since a busy machine may have been measured. `Fails`, then, where the run
    would."""
    fast, source = _speed(experiment, measure, say)
    for line in lines(experiment, root, budget, fast, source):
        say(wrapped(line, COLUMNS))


def lines(experiment: Experiment, root: Path, budget: float | None, fast: Speed | None, source: str) -> list[str]:
    """The plan. `source` tells where the speed `fast` comes from, or why there is none."""
    config = experiment.config
    return [
        f"plan: {config.agent.label()} on {experiment.env.name}, seed {config.seed}",
        f"  task: {_task(experiment)}",
        f"  policy sees: {_seen(experiment)}",
        f"  demonstrations: {_demonstrations(experiment)}",
        f"  training: {_training(experiment)}",
        f"  evaluations: {_evaluations(experiment)}",
        *_cost(experiment, root, budget, fast, source),
        f"  results: {root.absolute()}/<id>/",
    ]


def note(experiment: Experiment, run_id: str, source: str, overrides: Sequence[str]) -> str:
    """What trackers' pages say of a run, in Markdown: what it is, how it is repeated and looked at. `source`: its gin
    files as they were typed."""
    short = run_id[:ID]
    command = " ".join(["rrl run", source, *(f"--set {shlex.quote(each)}" for each in overrides)])
    return "\n".join(
        [
            f"**{facts.title(experiment)}**",
            "",
            f"- task: {_task(experiment)}",
            f"- policy sees: {_seen(experiment)}",
            f"- demonstrations: {_demonstrations(experiment)}",
            f"- training: {_training(experiment)}",
            "",
            f"Again: `{command}`, or `rrl run config.gin` with the file among the run's artifacts, which has all its "
            "settings.",
            f"Its page: `rrl report {short}`. Its policy: `rrl eval {short}`; as a model of MLflow's: `rrl export "
            f"{short} --mlflow`.",
        ]
    )


def _speed(experiment: Experiment, measure: bool, say: Callable[[str], None]) -> tuple[Speed | None, str]:
    config = experiment.config
    if config.precision == "int8":  # finding its ranges takes longer than all the rest
        return None, "int8 isn't measured beforehand"
    if not measure and (fast := estimate.known(config)) is not None:
        return fast, "measured before on this machine; --dry-run measures again"
    if not measure and estimate.steps(config) < SHORT:
        return None, f"fewer than {SHORT:,} steps aren't measured beforehand"
    say("measuring how fast this machine does it: some seconds, and for other runs of this kind too")
    load = os.getloadavg()[0]
    busy = f", which others keep busy: load {load:.1f} on {cores()} cores" if load > 0.5 * cores() else ""
    try:
        return estimate.measured(config), f"measured now on this machine{busy}"
    except (RuntimeError, OSError, ValueError) as error:
        if measure and isinstance(error, Fails):
            raise
        return None, f"measuring failed: {error}"


def _task(experiment: Experiment) -> str:
    env = experiment.env
    facts = env.facts()
    parts = [f"{name} {facts[name]}" for name in ("protocol", "reward") if name in facts]
    parts += [f"look {facts['look']}"] if "look" in facts and experiment.frames is not None else []
    repeated = f" that repeat their action {env.action_repeat} times" if env.action_repeat > 1 else ""
    parts += env.at_fault()
    return ", ".join([*parts, f"episodes of {env.horizon:,} steps{repeated}", f"judged by {env.score.name}"])


def _seen(experiment: Experiment) -> str:
    config, env, frames = experiment.config, experiment.env, experiment.frames
    seen = "no pictures"
    if frames is not None:
        kind = (
            "learnt with the agent" if experiment.encoder.trainable else f"frozen, {experiment.encoder.dim:,} features"
        )
        several = f", {frames.stack} at a time" if frames.stack > 1 else ""
        pictures = f"pictures of {', '.join(env.cameras)} ({frames.size} px{several})"
        seen = f"{pictures} through {config.encoder.label()}, {kind}"
    hidden = f"; in training alone: {env.privileged} numbers of state" if env.privileged else ""
    if not env.has_state:
        return f"{seen}; no state{hidden}"
    if not env.parts:
        return f"{seen}; a state (`rrl inspect` shows its numbers)"
    parts = [part for part in env.parts if not part.privileged]
    state = ", ".join(f"{part.name} ({part.size})" for part in parts)
    return f"{seen}; a state of {sum(part.size for part in parts)} numbers, {state}{hidden}"


def _demonstrations(experiment: Experiment) -> str:
    if experiment.demos is None:
        return "none"
    lengths = experiment.demos.demos.lengths
    return f"{len(lengths)} of {experiment.demos.name}, {int(lengths.sum()):,} steps"


def _training(experiment: Experiment) -> str:
    config, wants = experiment.config, experiment.config.agent.wants()
    if not config.iterations:
        return "the warm start alone"
    total = f"{fits.training_steps(config):,} environment steps"
    if isinstance(wants, Episodes):
        updates = "1 update" if config.iterations == 1 else f"{config.iterations:,} updates"
        return f"{total} at most, {updates} of {wants.count:,} episodes"
    return f"{total}, written down every {fits.iteration_steps(config):,}"


def _evaluations(experiment: Experiment) -> str:
    planned = estimate.evaluations(experiment.config, experiment.env)
    parts = [
        f"{evaluator.component.__name__} {'at the end' if evaluator.when == 'end' else f'{times:,} times'}"
        for evaluator, times, _ in planned
    ]
    steps = sum(times * each for _, times, each in planned)
    return f"{', '.join(parts)}: {steps:,} environment steps at most" if parts else "none"


def _cost(experiment: Experiment, root: Path, budget: float | None, fast: Speed | None, source: str) -> list[str]:
    stops = f"; --budget stops it after {duration(budget)}" if budget is not None else ""
    if fast is None:
        return [f"  time, memory, disk: not known yet ({source}); updates tell the time left{stops}"]
    cost, names = estimate.of_run(experiment.config, fast), estimate.untimed(experiment.config)
    beside = f", and {', '.join(names)} on top" if names else ""
    rate = 1 / (fast.sampling + fast.learning)
    speed = f"{rate:,.0f} steps/s" if rate >= 10 else f"{rate:.1f} steps/s"
    share = f"{fast.learning / (fast.sampling + fast.learning):.0%} of it learning"
    memory, disk = available_memory(), float(shutil.disk_usage(_there(root)).free)
    return [
        f"  time: about {duration(cost.seconds - cost.other)}{beside}{stops} ({speed}, {share}; {source})",
        f"  memory: {in_bytes(cost.memory)} at its peak, {in_bytes(memory)} free; disk: {in_bytes(cost.disk)}, "
        f"{in_bytes(disk)} free",
        *(["  WARNING: that is more memory than is free"] if cost.memory > memory else []),
        *(["  WARNING: that is more disk than is free"] if cost.disk > disk else []),
    ]


def _there(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
