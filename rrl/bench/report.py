"""What the commands of `rrl bench` print and write."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rrl import registry
from rrl.bench import measure
from rrl.bench.measure import Entry, Facts
from rrl.bench.ways import ways
from rrl.machine.console import duration
from rrl.machine.paths import new_file
from rrl.registry import UserError

# Where there is no terminal, rich would squeeze tables into 80 columns.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
notes = Console(highlight=False, soft_wrap=True, stderr=True)
LOOKS = ("default", "balanced", "fast")
TASKS = ("pen", "door", "hammer", "relocate")


def sampling(
    task: str,
    env: str,
    encoders: Sequence[str] | None,
    looks: Sequence[str],
    repeats: int,
    seconds: float,
    json: Path | None,
) -> None:
    """`rrl bench sampling`."""
    from rrl.bench import sampling as bench

    _known("task", [task], TASKS)
    _known("look", looks, LOOKS)
    _writable(json)
    if env and looks:
        raise UserError("--look is for Adroit's tasks; that of --env is set in its file")
    looks = looks or (["as set"] if env else ["fast", "balanced"])
    title = bench.env_config(env).label() if env else task
    chosen = bench.pipelines(task, _encoders(encoders), looks, ways(), env)
    entries = bench.measure(chosen, repeats, seconds, _progress)
    _finish(entries, f"sampling {title}, {chosen[0].envs} environments", json, {"repeats": repeats})


def rendering(task: str, repeats: int, seconds: float, json: Path | None) -> None:
    """`rrl bench rendering`."""
    _known("task", [task], TASKS)
    _writable(json)
    import torch

    from rrl.bench import rendering as bench
    from rrl.bench.sampling import encoder_config
    from rrl.encoders.base import Inference
    from rrl.envs import gl

    cases = bench.cases(task, (84, 224), seconds)
    entries = measure.interleave(cases, repeats, bench.UNIT, _progress)
    _finish(entries, f"rendering {task} with {gl.renderer()}", json, {"repeats": repeats})
    config = encoder_config("MobileNetV2")
    cameras = len(bench.environment(task, "default").cameras)
    encode = registry.build(config, cameras=cameras).inference(Inference())
    console.print("\nAgainst the default look, 24 recorded states, 224 px (features of MobileNetV2, fp32):")
    for row in bench.drift(task, lambda frames: encode(torch.as_tensor(frames)).numpy()):
        console.print(f"  {row.look:<9} PSNR {row.psnr:5.1f} dB, features moved {row.features:.3f} of their spread")


def encoders(names: Sequence[str] | None, task: str, repeats: int, json: Path | None) -> None:
    """`rrl bench encoders`."""
    from rrl.bench import encoders as bench
    from rrl.bench import parity

    _known("task", [task], TASKS)
    _writable(json)
    chosen = _encoders(names)
    cases, left_out = bench.cases(chosen)
    entries = measure.interleave(cases, repeats, bench.UNIT, _progress)
    _finish(entries, "encoders", json, {"repeats": repeats})
    for text in [*bench.shares(entries), *left_out]:
        console.print(text)
    for name in chosen:
        parity.show(parity.report(name, task, "fast", ways()), console)


def updates(repeats: int, json: Path | None) -> None:
    """`rrl bench updates`."""
    from rrl.bench import rlpd
    from rrl.bench import updates as bench

    _writable(json)
    cases = bench.cases() + rlpd.cases()
    entries = measure.interleave(cases, repeats, bench.UNIT, _progress)
    _finish(entries, "updates: NPG's of 40,000 samples of 536 numbers, RLPD's of 256", json, {"repeats": repeats})
    console.print(f"relative difference of our step to the reference's: {bench.step_error():.1e}")


def sac(repeats: int, json: Path | None) -> None:
    """`rrl bench sac`."""
    from rrl.bench import sac as bench

    _writable(json)
    entries = measure.interleave(bench.cases(), repeats, bench.UNIT, _progress)
    _finish(entries, "RAD updates from pixels", json, {"repeats": repeats})


def pretrain(repeats: int, json: Path | None) -> None:
    """`rrl bench pretrain`."""
    from rrl.bench import pretrain as bench

    _writable(json)
    entries = measure.interleave(bench.cases(), repeats, bench.UNIT, _progress)
    _finish(entries, "training a VAE", json, {"repeats": repeats})


def startup(repeats: int, json: Path | None) -> None:
    """`rrl bench startup`."""
    from rrl.bench import startup as bench

    _writable(json)
    entries = measure.interleave(bench.cases(), repeats, bench.UNIT, _progress)
    console.print(measure.machine()["processor"])
    bench.show(entries, console)
    if json is not None:
        measure.write(json, {"repeats": repeats}, entries)
        console.print(f"written: {json}")


def compute(
    files: Sequence[str], repeats: int, json: Path | None, chart: Path | None, overrides: Sequence[str] = ()
) -> None:
    """`rrl bench compute`."""
    from rrl.bench import chart as drawing
    from rrl.bench import compute as bench

    _writable(json)
    for file in drawing.files(chart) if chart else ():
        new_file(file)
    runs = bench.load(files, overrides)
    began = time.monotonic()
    cases = bench.cases(runs)  # counts what is timed then, which takes about as long as a turn
    notes.print(f"runs: {len(cases)}, turns: {repeats}; about {duration(repeats * (time.monotonic() - began))}")
    entries = measure.interleave(cases, repeats, bench.UNIT, _progress)
    _finish(entries, "computation alone, environment steps", json, {"repeats": repeats})
    table = Table(title="million multiply-adds per environment step", title_justify="left")
    for column in ("", *bench.COUNTS, "all", f"times {cases[0].name}"):
        table.add_column(column, justify="right" if column else "left")
    first = float(cases[0].facts["multiply_adds"])
    for case in cases:
        parts = [float(case.facts[f"{part}_multiply_adds"]) for part in bench.COUNTS]
        numbers = [f"{part / 1e6:,.2f}" for part in (*parts, sum(parts))]
        table.add_row(case.name, *numbers, f"{sum(parts) / first:.2f}")
    console.print(table)
    costs = drawing.costs(entries)
    console.print(drawing.table(costs))
    for text in drawing.ratios(entries, overrides):
        console.print(text)
    if chart is not None:
        drawing.draw(costs, drawing.told(entries, overrides), chart)
        console.print(f"written: {', '.join(map(str, drawing.files(chart)))}")


def _finish(entries: Sequence[Entry], title: str, json: Path | None, settings: Facts) -> None:
    facts: dict[str, Any] = measure.machine()
    console.print(f"{facts['processor']}, {facts['cores']} cores, {', '.join(facts.get('instructions', []))}")
    measure.show(entries, console, title)
    if json is not None:
        measure.write(json, settings, entries)
        console.print(f"written: {json}")


def _encoders(names: Sequence[str] | None) -> list[str]:
    from rrl.encoders.settings.frozen import FrozenEncoder

    known = [n for n in registry.names("encoder") if issubclass(registry.get(n), FrozenEncoder)]
    _known("encoder", names or [], known)
    return list(names or filter(_can_be_had, known))


def _can_be_had(encoder: str) -> bool:
    """False, and a note, for an encoder that needs a package that isn't here."""
    from rrl.bench.sampling import encoder_config

    try:
        encoder_config(encoder)
    except UserError as error:
        notes.print(f"left out: {error}")
        return False
    return True


def _known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"--{what} {name}: there is none of this name; take one of {', '.join(known)}")


def _writable(json: Path | None) -> None:
    """Minutes of measuring must not end in a file that can't be written."""
    if json is not None:
        new_file(json)


def _progress(text: str) -> None:
    notes.print(text, style="dim")
