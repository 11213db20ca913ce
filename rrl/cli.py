"""The command line. Commands import what they need when they run: `rrl --help` must be quick."""

from __future__ import annotations

import atexit
import gc
import math
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

_WORDS = "rrl.words"
"""Where click's context keeps what was typed."""
_UsageError: Any = typer.BadParameter.__base__


class _Group(TyperGroup):
    """A user's mistake is told in plain words and exits 2; a fault of ours shows a traceback and exits 1."""

    def invoke(self, ctx: Any) -> Any:
        atexit.register(gc.freeze)  # else Python's last collection walks all of torch and MLflow: seconds
        os.environ["PYTHONSAFEPATH"] = "1"  # children run no file of the working folder that is named as a module
        if "OMP_WAIT_POLICY" not in os.environ:
            # Before torch loads libgomp, whose threads wait for each other busily, 300,000 turns long: beside
            # another busy process they use up the very time that the late one needs, and a training runs
            # several times slower (docs/performance.md).
            os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        return self._teaching(ctx, super().invoke, ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the words up to the command's name."""
        ctx.meta[_WORDS] = list(args)
        return self._teaching(ctx, super().parse_args, ctx, args)

    def _teaching(self, ctx: Any, work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            _live_somewhere()
            return work(*arguments)
        except Exception as error:
            from rrl.registry import UserError

            if not isinstance(error, (UserError, _UsageError)) or type(error).__name__ == "NoArgsIsHelpError":
                raise
            from rrl.commands import mistyped

            typer.echo(f"error: {mistyped.told(error, self, ctx.meta[_WORDS])}", err=True)
            raise typer.Exit(2) from None


def _finite(value: float) -> float:
    """nan passes every comparison, and so the ends of a range."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"it must be a number; got {value}")
    return value


SEED = 2**63 - 1
"""The largest one; `rrl.registry.Seed` says why."""
BUDGET = 87_600
"""Hours; clocks end somewhere."""
EPISODES = 100_000
"""Of one evaluation or recording, at most: what happens in all of their steps is held at once."""


def _live_somewhere() -> None:
    """UserError if the current folder has been removed: every path is relative to it. A user without a home, as in a
    container, gets one for this process: MLflow and matplotlib look for theirs, and our cache lies there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        from rrl.registry import UserError

        raise UserError("the current folder has been removed: cd to another one") from None
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = f"{tempfile.gettempdir()}/rrl-home-{os.getuid()}"


def _path(text: str | Path) -> Path:
    """A path as it was typed, `~` too where the shell left it alone."""
    from rrl.machine.paths import typed

    return typed(str(text))


def _word(text: str) -> str:
    """A path or a name, likewise."""
    from rrl.machine.paths import word

    return word(text)


app = typer.Typer(
    cls=_Group,
    help="Visual robot learning as a matter of configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # rich's help would cost a third of `rrl --help`
)
weights_app = typer.Typer(help="Pretrained encoder weights.", no_args_is_help=True)
demos_app = typer.Typer(help="Demonstrations.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.add_typer(demos_app, name="demos")
bench_app = typer.Typer(
    help="Speed of this machine, against plain references timed in the same run.", no_args_is_help=True
)
app.add_typer(bench_app, name="bench")

Sources = Annotated[
    list[str],
    typer.Argument(
        parser=_word,
        help="Gin files, or names of shipped ones (see `rrl list`); several are laid over each other, the later wins.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help='Override a binding, in gin syntax: --set "ResNet.depth = 50". Repeatable.'),
]
Budget = Annotated[
    str | None,
    typer.Option(help="Stop cleanly after this time, such as 90s, 30m or 2h; `rrl resume` goes on."),
]


@app.command()
def run(
    sources: Sources,
    set_: Sets = None,
    budget: Budget = None,
    name: Annotated[str | None, typer.Option(help="The run's name in MLflow.")] = None,
) -> None:
    """Train what a gin file describes, or several laid over each other."""
    seconds = _seconds(budget)
    from rrl.config import ginfile
    from rrl.registry import UserError
    from rrl.run import process

    for source in sources:
        if ginfile.binds(source, "Sweep"):
            raise UserError(f"{source} is a sweep, not a run; start it with: rrl sweep {source}")
    raise typer.Exit(process.start(sources, set_ or [], name, seconds))


@app.command()
def resume(
    run: Annotated[str, typer.Argument(parser=_word, help="A run id, the beginning of one, or a run's folder.")],
    budget: Budget = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, max=10**9, help="Lengthen the run, finished or not, to so many iterations."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="What this machine decides otherwise, in gin syntax: Experiment.device, backend, workers, threads. "
            "Repeatable.",
        ),
    ] = None,
) -> None:
    """Go on with a run from its last checkpoint."""
    seconds = _seconds(budget)
    from rrl.run import process

    raise typer.Exit(process.resume(run, seconds, iterations, set_ or []))


@app.command()
def sweep(
    sources: Annotated[
        list[str],
        typer.Argument(parser=_word, help="Gin files of runs, folders of them, or one sweep file (see gin/sweeps)."),
    ],
    seeds: Annotated[str | None, typer.Option(help="Do each run with each of these seeds: 0,1,2.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at a time; default: as many as cores and memory allow.", min=1, max=1_024)
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help='Values to combine, in gin syntax: --grid "DAPG.step_size = (0.02, 0.05)". Repeatable.'),
    ] = None,
    set_: Sets = None,
    search: Annotated[str | None, typer.Option(help="grid, random or optuna; default: grid.")] = None,
    trials: Annotated[int | None, typer.Option(help="Combinations that a search tries.", min=1, max=100_000)] = None,
    metric: Annotated[str | None, typer.Option(help="What a search maximises.")] = None,
    budget: Budget = None,
    backend: Annotated[str, typer.Option(help="local, ray or slurm.")] = "local",
    slurm: Annotated[
        list[str] | None, typer.Option(help="A setting of submitit, such as slurm_partition=gpu. Repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The sweep's name; the same name goes on with it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, stop.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Begin a new sweep, whatever there is.")] = False,
) -> None:
    """Run many gin files, seeds and settings; the same command again goes on where it stopped."""
    seconds, numbers = _seconds(budget), _numbers(seeds)
    from rrl.sweeps import command
    from rrl.sweeps.plan import request

    label, config = request(
        sources,
        seeds=numbers,
        grid=grid or [],
        overrides=set_ or [],
        search=search,
        trials=trials,
        metric=metric,
    )
    options = {"jobs": jobs, "budget": seconds, "backend": backend, "slurm": slurm or []}
    raise typer.Exit(command.sweep(name or label, config, dry_run=dry_run, new=new, **options))  # type: ignore[arg-type]


@app.command()
def runs(
    names: Annotated[
        list[str] | None, typer.Argument(help="Only these: sweeps and runs, by id, beginning of an id, or folder.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only of this task, such as door.")] = None,
    method: Annotated[str | None, typer.Option(help="Only with this encoder or agent, such as DAPG.")] = None,
    status: Annotated[str | None, typer.Option(help="finished, stopped, failed, running or damaged.")] = None,
    name: Annotated[str | None, typer.Option(help="Only with this in their names.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the newest so many.", min=1)] = None,
    json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False,
) -> None:
    """List the runs of this folder, newest first."""
    from rrl.report import listing

    show = listing.show
    show(names or [], typer.echo, task=task, method=method, status=status, name=name, limit=limit, as_json=json)


@app.command()
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A run or a sweep of seeds, as for `rrl runs`; or ids: a1,a2,a3.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what two runs differ in, settings and numbers, and what forbids comparing them."""
    from rrl.report.compare import compare as show

    show(a, b, typer.echo, as_json=json)


@app.command()
def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(parser=_word, help="Sweeps and runs: ids, beginnings of ids, folders; none: all."),
    ] = None,
    out: Annotated[Path, typer.Option(parser=_path, help="The page to write; figures and CSV go beside it.")] = Path(
        "report.html"
    ),
) -> None:
    """Write one page about runs: curves, tables, comparisons, videos. It opens offline."""
    from rrl.report.write import write

    write(names or [], out, typer.echo)


@app.command()
def reproduce(
    figure: Annotated[str, typer.Argument(help="A figure of the paper: fig4.")],
    task: Annotated[str, typer.Option(help="pen, door, hammer or relocate.")],
    budget: Annotated[str, typer.Option(help="Time for all runs together, such as 2h; or paper.")] = "paper",
    seeds: Annotated[str | None, typer.Option(help="Default: the authors' 10,11,12; with a budget 10.")] = None,
    oracles: Annotated[bool, typer.Option("--oracles", help="Also the curves without published numbers.")] = False,
    runs: Annotated[
        list[str] | None, typer.Option("--run", parser=_word, help="Judge this run instead of running. Repeatable.")
    ] = None,
    set_: Sets = None,
    out: Annotated[Path | None, typer.Option(parser=_path, help="The report; default: in the sweep's folder.")] = None,
) -> None:
    """Reproduce a figure of the paper and say how ours compares with the published numbers."""
    seconds, numbers = None if budget == "paper" else _seconds(budget), _numbers(seeds)
    from rrl.reproduce import command

    code = command.reproduce(
        figure,
        task,
        budget=seconds,
        seeds=numbers,
        oracles=oracles,
        runs=runs or [],
        overrides=set_ or [],
        out=out,
    )
    raise typer.Exit(code)


@app.command("eval")
def eval_(
    policy: Annotated[
        str,
        typer.Argument(
            parser=_word, help="A run (id or the beginning of one), a policy file, or a shipped policy's name."
        ),
    ],
    episodes: Annotated[
        int | None,
        typer.Option(help="Default: the run's own final evaluation, the same episodes.", min=1, max=EPISODES),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides the episodes; default: the run's.", min=0, max=SEED)] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="Of a run, the policy with the best return (SAC and its kin: in evaluations)."),
    ] = False,
    video: Annotated[Path | None, typer.Option(parser=_path, help="Also film three episodes into this .mp4.")] = None,
    json: Annotated[Path | None, typer.Option("--json", parser=_path, help="Write the numbers to this file.")] = None,
) -> None:
    """Evaluate a policy from its file alone: mean and sampled actions, both success rules, intervals."""
    from rrl.commands import policies as evaluation
    from rrl.machine.console import Display

    with Display() as display:
        evaluation.evaluate(policy, display, episodes=episodes, seed=seed, best=best, video=video, json_file=json)


@app.command()
def export(
    run: Annotated[str, typer.Argument(parser=_word, help="A run id, the beginning of one, or a run's folder.")],
    policy: Annotated[
        Path | None, typer.Option("--policy", parser=_path, help="Write the policy to this .safetensors.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option("--encoder", parser=_path, help="Write the encoder that the run trained (RAD, ...) to this one."),
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="The one with the best return (SAC and its kin: in evaluations), not the last."),
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Network weights in float16: half the size, rounded.")] = False,
) -> None:
    """Copy a run's policy, or the encoder that it trained, into a file of its own, with where it comes from.

    `FixedEncoder.file` takes an exported encoder: frozen features for other tasks and agents.
    """
    from rrl.commands import policies as evaluation

    if (policy is None) == (encoder is None):
        raise typer.BadParameter("say what to export: --policy FILE or --encoder FILE")
    if encoder is not None and (best or half):
        raise typer.BadParameter("--best and --half are for --policy: a run keeps one encoder, the last")
    if policy is not None:
        evaluation.export(run, policy, typer.echo, best=best, half=half)
    if encoder is not None:
        evaluation.export_encoder(run, encoder, typer.echo)


@app.command()
def check(sources: Sources, set_: Sets = None) -> None:
    """Check a gin file of a run or a sweep (or several, laid over each other), and print the whole configuration."""
    from rrl.config import ginfile

    sweeps = [source for source in sources if ginfile.binds(source, "Sweep")]
    if sweeps and len(sources) > 1:
        from rrl.registry import UserError

        raise UserError(f"{sweeps[0]} is a sweep of its own: check it alone, not beside other files")
    root = "Sweep" if sweeps else "Experiment"
    typer.echo(ginfile.dumps(ginfile.load(sources, set_ or [], root), Path()), nl=False)


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="Only this kind, such as encoder.")] = None,
) -> None:
    """List the components that a gin file can name, and the shipped gin files."""
    from rrl.commands import listing

    listing.show(kind, typer.echo)


@app.command()
def describe(name: Annotated[str, typer.Argument(help="A component, such as DAPG.")]) -> None:
    """Show a component's settings with types, defaults and meanings."""
    from rrl.config import ginfile

    typer.echo(ginfile.describe(name))


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65_535)] = 5000) -> None:
    """Open MLflow's UI on the store that runs in this folder write to (this machine only)."""
    from rrl.commands.ui import open_ui

    open_ui(port, typer.echo)


@app.command()
def doctor() -> None:
    """Show what this machine offers: rendering, torch, weights, demonstrations."""
    from rrl.commands import doctor as checks

    raise typer.Exit(0 if checks.report(typer.echo) else 1)


@weights_app.command("list")
def weights_list() -> None:
    """Show where each encoder's weights would come from."""
    from rrl.encoders import weights

    for row in weights.rows():
        typer.echo(str(row))


@weights_app.command("fetch")
def weights_fetch(
    name: Annotated[str, typer.Argument(help="A model, such as resnet34.")],
    folder: Annotated[Path, typer.Argument(parser=_path, help="Where to put the file.")] = Path(),
) -> None:
    """Download weights, to be carried to a machine without internet."""
    from rrl.encoders import weights

    typer.echo(weights.fetch(name, folder))


@demos_app.command("info")
def demos_info(
    source: Annotated[
        str | None, typer.Argument(parser=_word, help="A shipped set or a file; none: list the shipped.")
    ] = None,
) -> None:
    """Show what a set of demonstrations holds."""
    from rrl.commands import demos

    demos.info(source, typer.echo)


@demos_app.command("make")
def demos_make(
    policy: Annotated[
        Path,
        typer.Argument(parser=_path, help="A policy file (a run's policy.safetensors), or a shipped policy's name."),
    ],
    out: Annotated[Path, typer.Argument(parser=_path, help="The .npz to write; its .json goes beside it.")],
    episodes: Annotated[
        int, typer.Option(help="Episodes to keep: successful ones, if the task tells.", min=1, max=EPISODES)
    ] = 25,
    seed: Annotated[int, typer.Option(help="Decides the episodes' starts.", min=0, max=SEED)] = 0,
    tries: Annotated[
        int | None, typer.Option(help="Episodes to run for that; default: twice as many.", min=1, max=EPISODES)
    ] = None,
    action_noise: Annotated[
        float,
        typer.Option(
            help="Std of Gaussian noise on the actions, which are normalised to [-1, 1].",
            min=0.0,
            max=10.0,
            callback=_finite,
        ),
    ] = 0.0,
) -> None:
    """Record demonstrations with a policy (mean action), keeping the successful episodes, or without a success test
    the first ones."""
    from rrl.commands import demos
    from rrl.machine.console import Display, optional_output

    with optional_output(), Display() as display:
        demos.make(policy, out, episodes, seed, tries, display.line, action_noise, display)


@demos_app.command("import")
def demos_import(
    source: Annotated[
        str,
        typer.Argument(
            parser=_word,
            help="A DAPG pickle, an .hdf5 (robomimic, D4RL), an .npz of plain arrays, or a Minari dataset.",
        ),
    ],
    out: Annotated[Path, typer.Argument(parser=_path, help="The .npz to write; its .json goes beside it.")],
    task: Annotated[
        str | None, typer.Option(help="door, cartpole_swingup, ...; default: the one in the source's name.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="dapg, hdf5, minari or npz; default: by the name.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Task variant whose success is counted; default: the task's own.")
    ] = None,
    origin: Annotated[str, typer.Option(help="Who acted, for tables and comparisons.")] = "human",
) -> None:
    """Take over other people's demonstrations; their actions are replayed here. Nothing in a file is run."""
    from rrl.commands import demos
    from rrl.machine.console import Display, optional_output

    with optional_output(), Display() as display:
        demos.take_over(
            source, out, display.line, task=task, kind=format_, protocol=protocol, origin=origin, progress=display
        )


@demos_app.command("render")
def demos_render(
    source: Annotated[str, typer.Argument(parser=_word, help="A shipped set or a file.")],
    out: Annotated[Path, typer.Argument(parser=_path, help="The .mp4 to write.")],
    camera: Annotated[list[str] | None, typer.Option(help="Repeatable: side by side; default: the protocol's.")] = None,
    look: Annotated[str, typer.Option(help="default, balanced or fast.")] = "default",
    episodes: Annotated[str, typer.Option(help="Which ones, from 0: 0,3,4.")] = "0,1,2",
    size: Annotated[int, typer.Option(help="Side of a camera's picture in pixels; even.", min=16, max=4_096)] = 480,
    every: Annotated[int, typer.Option(help="Film every so many steps (4: real time).", min=1, max=10**6)] = 4,
    states: Annotated[
        bool, typer.Option("--states", help="Show the recorded states instead of replaying the actions.")
    ] = False,
) -> None:
    """Film demonstrations through any camera and look."""
    from rrl.commands import demos
    from rrl.machine.console import Display, optional_output

    with optional_output(), Display() as display:
        demos.film(
            source,
            out,
            display.line,
            cameras=camera or [],
            look=look,
            chosen=_numbers(episodes, "--episodes"),
            size=size,
            every=every,
            by="states" if states else "actions",
            progress=display,
        )


@demos_app.command("export")
def demos_export(
    source: Annotated[str, typer.Argument(parser=_word, help="A shipped set or a file.")],
    dataset: Annotated[str, typer.Argument(help="The Minari id to write, such as rrl/door/expert-v0.")],
) -> None:
    """Write demonstrations as a local Minari dataset (state observations)."""
    from rrl.commands import demos
    from rrl.machine.console import Display, optional_output

    with optional_output(), Display() as display:
        demos.export(source, dataset, display.line, display)


@demos_app.command("verify")
def demos_verify(
    source: Annotated[str, typer.Argument(parser=_word, help="A shipped set or a file.")],
) -> None:
    """Replay demonstrations on this machine and compare with what was recorded."""
    from rrl.commands import demos
    from rrl.machine.console import Display

    with Display() as display:
        fine = demos.verify(source, display.line, display)
    raise typer.Exit(0 if fine else 1)


Task = Annotated[str, typer.Option(help="pen, door, hammer or relocate.")]
Encoders = Annotated[list[str] | None, typer.Option("--encoder", help="Repeatable; default: all.")]
Repeats = Annotated[int, typer.Option(help="Turns; medians are over them.", min=1, max=1_000)]
Length = Annotated[
    float, typer.Option("--seconds", help="Of each case in each turn.", min=0.1, max=3_600.0, callback=_finite)
]
Json = Annotated[Path | None, typer.Option("--json", parser=_path, help="Write everything to this file.")]


@bench_app.command("sampling")
def bench_sampling(
    task: Task = "door",
    encoder: Encoders = None,
    look: Annotated[list[str] | None, typer.Option(help="Repeatable; default: fast and balanced.")] = None,
    repeats: Repeats = 5,
    seconds: Length = 6.0,
    json: Json = None,
) -> None:
    """Environment steps per second from pixels, and what limits them."""
    from rrl.bench import report

    report.sampling(task, encoder, look or ["fast", "balanced"], repeats, seconds, json)


@bench_app.command("rendering")
def bench_rendering(task: Task = "door", repeats: Repeats = 5, seconds: Length = 2.0, json: Json = None) -> None:
    """Frames per second by look and size, and what a look changes."""
    from rrl.bench import report

    report.rendering(task, repeats, seconds, json)


@bench_app.command("encoders")
def bench_encoders(encoder: Encoders = None, task: Task = "door", repeats: Repeats = 5, json: Json = None) -> None:
    """Images per second by backend, precision and batch; and how far features are from float32's."""
    from rrl.bench import report

    report.encoders(encoder, task, repeats, json)


@bench_app.command("updates")
def bench_updates(repeats: Repeats = 5, json: Json = None) -> None:
    """NPG updates and value fits per minute on 40,000 samples."""
    from rrl.bench import report

    report.updates(repeats, json)


@bench_app.command("sac")
def bench_sac(repeats: Repeats = 5, json: Json = None) -> None:
    """RAD's gradient updates per second from pixels, against its plain form."""
    from rrl.bench import report

    report.sac(repeats, json)


@bench_app.command("compute")
def bench_compute(
    files: Annotated[
        list[str] | None,
        typer.Argument(parser=_word, help="Gin files of runs; default: RRL with some encoders, and FERM, on the door."),
    ] = None,
    repeats: Repeats = 5,
    json: Json = None,
) -> None:
    """What runs compute per environment step: multiply-adds and time, without simulation and rendering."""
    from rrl.bench import report

    report.compute(files or [], repeats, json)


def _numbers(text: str | None, option: str = "--seeds") -> list[int]:
    """`0,1,2` -> [0, 1, 2]"""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise typer.BadParameter(f"{option} takes whole numbers with commas between, such as 0,1,2; got {text!r}")
    # Python itself refuses to read more than some thousand digits.
    large = [part for part in parts if len(part) > len(str(SEED)) or int(part) > SEED]
    if large:
        raise typer.BadParameter(f"{option} takes numbers up to {SEED}; got {large[0]}")
    return [int(part) for part in parts]


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if match is None:
        raise typer.BadParameter(f"--budget takes a number with s, m or h, such as 90s, 30m or 2h; got {text!r}")
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    if seconds > BUDGET * 3600:
        raise typer.BadParameter(f"--budget takes at most {BUDGET}h, ten years; got {text!r}")
    return seconds


if __name__ == "__main__":
    app()
