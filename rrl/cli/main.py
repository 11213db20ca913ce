"""`rrl` and its commands, but for the groups that have a file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rrl.cli import bench, completion, demos, trained
from rrl.cli.group import Group
from rrl.cli.options import Budget, Sets, Sources, numbers_of, path, seconds_of, word

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # rich's help would cost a third of `rrl --help`
)
weights_app = typer.Typer(help="Pretrained encoder weights.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.add_typer(demos.app, name="demos")
app.add_typer(bench.app, name="bench")


def _tell_version(asked: bool) -> None:
    if asked:
        from rrl import __version__

        typer.echo(f"rrl {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show rrl's version and exit.")
    ] = False,
) -> None:
    """Visual robot learning as a matter of configuration."""


@app.command()
def run(
    sources: Sources,
    set_: Sets = None,
    budget: Budget = None,
    name: Annotated[str | None, typer.Option(help="The run's name in MLflow.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, measure this machine's speed, print the plan, stop.")
    ] = False,
) -> None:
    """Train what a gin file describes. Several are laid over each other."""
    seconds = seconds_of(budget)
    from rrl.config import ginfile, origins
    from rrl.run import process

    ginfile.must_be("Experiment", sources)
    with origins.told(sources, set_ or []):
        if dry_run:
            raise typer.Exit(process.dry_run(sources, set_ or [], seconds))
        raise typer.Exit(process.start(sources, set_ or [], name, seconds))


@app.command()
def resume(
    run: Annotated[
        str,
        typer.Argument(
            parser=word, autocompletion=completion.runs, help="A run id, the beginning of one, or a run's folder."
        ),
    ],
    budget: Budget = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, max=10**9, help="Lengthen the run, finished or not, to so many iterations."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="What this machine decides otherwise, in gin syntax: Experiment.device, backend, workers, threads; or "
            "other trackers. Repeatable.",
        ),
    ] = None,
) -> None:
    """Go on with a run from its last checkpoint."""
    seconds = seconds_of(budget)
    from rrl.run import process

    raise typer.Exit(process.resume(run, seconds, iterations, set_ or []))


@app.command()
def sweep(
    sources: Annotated[
        list[str],
        typer.Argument(
            parser=word,
            autocompletion=completion.gin_files,
            help="Gin files of runs, folders of them, or one sweep file (see gin/sweeps).",
        ),
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
    """Run many gin files, seeds and settings.

    The same command again goes on where it stopped.
    """
    seconds, numbers = seconds_of(budget), numbers_of(seeds)
    from rrl.sweeps import command
    from rrl.sweeps.plan import request, written

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
    places = written(sources)
    raise typer.Exit(command.sweep(name or label, config, places, dry_run=dry_run, new=new, **options))  # type: ignore[arg-type]


@app.command()
def probe(
    sources: Sources,
    set_: Sets = None,
    name: Annotated[str | None, typer.Option(help="The probe's name; the same name goes on with it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say how long it takes, stop.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Begin a new folder, whatever there is.")] = False,
) -> None:
    """Compare encoders on a task without training in it.

    The same command again goes on where it stopped. Exit code 2: an encoder could not be had, or failed; its row says
    why, and the others are done.
    """
    from rrl.config import origins
    from rrl.probes import command

    with origins.told(sources, set_ or [], "Probe"):
        raise typer.Exit(command.probe(sources, set_ or [], name, dry_run=dry_run, new=new))


@app.command()
def pretrain(
    sources: Sources,
    set_: Sets = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=path, help="The encoder's file; default: runs/NAME.safetensors. None is overwritten."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Stop cleanly after this time, such as 90s or 2h; the same command goes on.")
    ] = None,
) -> None:
    """Train an encoder on a task's pictures, before anything acts.

    The same command again goes on where it stopped.
    """
    seconds = seconds_of(budget)
    from rrl.config import ginfile, origins
    from rrl.pretrain import command

    ginfile.must_be("Pretraining", sources)
    with origins.told(sources, set_ or [], "Pretraining"):
        raise typer.Exit(command.pretrain(sources, set_ or [], out, seconds))


@app.command()
def runs(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            autocompletion=completion.runs, help="Only these: sweeps and runs, by id, beginning of an id, or folder."
        ),
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
        str,
        typer.Argument(
            metavar="A",
            autocompletion=completion.runs,
            help="A run or a sweep of seeds, as for `rrl runs`; or ids: a1,a2,a3.",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", autocompletion=completion.runs, help="What to compare it with.")],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what two runs differ in, settings and numbers.

    And what forbids comparing them. `rrl diff` is for gin files, and tells of settings alone.
    """
    from rrl.report.compare import compare as show

    show(a, b, typer.echo, as_json=json)


@app.command()
def sync(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            parser=word,
            autocompletion=completion.runs,
            help="Sweeps and runs: ids, beginnings of ids, folders; none: all.",
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Another MLflow store: sqlite:///FILE or a server's address.", metavar="URI")
    ] = None,
) -> None:
    """Tell MLflow what it lacks of runs, from their folders.

    After an outage that a run did not outlast, a lost `mlflow.db`, or to show runs in another store too. Twice is once:
    nothing is recorded again.
    """
    from rrl.commands import sync as syncing

    syncing.sync(names or [], to, typer.echo)


@app.command()
def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            autocompletion=completion.gin_files_and_runs,
            help="A gin file, the name of a shipped one, or a run as for `rrl compare`.",
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", autocompletion=completion.gin_files_and_runs, help="What differs from it: likewise."
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the settings in which two gin files or runs differ.

    Each stands with the line that decided it; a file can be compared with a run, too.

    `rrl compare` tells of two runs also their numbers, and what they ran on.
    """
    from rrl.report.diff import diff as show

    show(a, b, typer.echo, as_json=json)


@app.command()
def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            parser=word,
            autocompletion=completion.runs,
            help="Sweeps and runs: ids, beginnings of ids, folders; none: all.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            help="The page to write, figures and CSV go beside it; default: report.html. The folder of --only figures; "
            "default: figures.",
        ),
    ] = None,
    only: Annotated[
        Literal["figures"] | None, typer.Option(help="No page: its figures alone, as PNG, SVG and PDF.")
    ] = None,
    x: Annotated[
        Literal["steps", "log-steps", "hours"],
        typer.Option(help="Of --only figures: draw curves over environment steps, or over hours on the runs' clocks."),
    ] = "steps",
    published: Annotated[
        str | None,
        typer.Option(metavar="FIGURE", help="Draw the authors' curves beside ours, of every task of a figure: fig4."),
    ] = None,
) -> None:
    """Write one page about runs: curves, tables, comparisons, videos. It opens offline."""
    from rrl.report import write

    theirs = []
    if published is not None:
        from rrl.reproduce import published as figures

        curves = figures.every(published)
        theirs = [each.drawn() for each in curves]
        for line in figures.compared(curves, write.read(names or [])):
            typer.echo(line)
    if only == "figures":
        write.write_figures(names or [], out or Path("figures"), typer.echo, x=x, published=theirs)
        return
    if x != "steps":
        raise typer.BadParameter(
            f"the page's curves are over environment steps; for others: rrl report --only figures --x {x}"
        )
    write.write(names or [], out or Path("report.html"), typer.echo, published=theirs)


@app.command()
def reproduce(
    figure: Annotated[
        str | None, typer.Argument(help="A figure or table of the paper, such as fig4; none: what there is.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="One of the figure's tasks; default: all.")] = None,
    budget: Annotated[str, typer.Option(help="Time for all runs together, such as 2h; or paper.")] = "paper",
    seeds: Annotated[str | None, typer.Option(help="Default: the authors' 10,11,12; with a budget 10.")] = None,
    oracles: Annotated[bool, typer.Option("--oracles", help="Of fig4, also the curves without published numbers.")] = (
        False
    ),
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            parser=word,
            help="Take this run instead of running; where policies are evaluated, also a policy file. Repeatable.",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(help="Of fig5_left: turns of measuring; default: 5. 1 is the quickest.", min=1, max=1_000),
    ] = None,
    set_: Sets = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=path, help="The report or the picture; default: in the sweep's folder, in runs/figures."),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Say what there is to reproduce, or what this figure is, and what it costs.")
    ] = False,
) -> None:
    """Reproduce a figure of the paper.

    How ours compares with the published numbers is said. The same command again goes on where it stopped (fig2 and
    fig5_left, of minutes, begin anew until they are drawn).
    """
    seconds, numbers = None if budget == "paper" else seconds_of(budget), numbers_of(seeds)
    from rrl.reproduce import command

    if figure is None or list_:
        command.show(typer.echo, figure)
        return
    code = command.reproduce(
        figure,
        task,
        budget=seconds,
        seeds=numbers,
        oracles=oracles,
        runs=runs or [],
        repeats=repeats,
        overrides=set_ or [],
        out=out,
    )
    raise typer.Exit(code)


app.command("eval")(trained.eval_)
app.command()(trained.play)
app.command()(trained.export)


@app.command()
def check(sources: Sources, set_: Sets = None) -> None:
    """Check a gin file, and print the whole configuration.

    It may be of a run, a sweep, a probe or a pretraining, or several laid over each other. Nothing is built: `rrl run
    --dry-run` also makes the environment, looks for weights, and says what the run will cost. Newer settings at their
    default, which a run's `config.gin` leaves out, are comments.
    """
    from rrl.config import ginfile

    root = ginfile.root_together(sources)
    typer.echo(ginfile.dumps(ginfile.load(sources, set_ or [], root), Path(), silent=True), nl=False)


@app.command()
def show(
    sources: Sources,
    set_: Sets = None,
    all_: Annotated[bool, typer.Option("--all", help="Also what nothing binds: the schema's defaults.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show the settings of a gin file, and where each comes from.

    Settings are as `rrl check` resolves them (of several files, laid over each other), each with the line that decided
    it, the includes that led there, and what it took the place of. What is printed is a gin file.
    """
    from rrl.commands import showing
    from rrl.config import ginfile

    root = ginfile.root_together(sources)
    showing.show(sources, set_ or [], root, typer.echo, defaults=all_, as_json=json)


@app.command()
def inspect(
    sources: Sources,
    set_: Sets = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", parser=path, help="Write the first picture, as the encoder gets it, to this .png."),
    ] = None,
) -> None:
    """Try a run's environment for one episode.

    Shows actions, observation, cameras, infos, and the first picture.
    """
    from rrl.commands import inspection
    from rrl.config import ginfile, origins

    ginfile.must_be("Experiment", sources)
    with origins.told(sources, set_ or []):
        inspection.show(sources, set_ or [], picture, typer.echo)


app.command()(trained.look)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="encoder, agent, environment or evaluator.")],
    name: Annotated[
        str, typer.Argument(help="The class's name, such as MyNet; folder and module are called my_net then.")
    ],
    into: Annotated[Path, typer.Option(parser=path, help="The folder to make it in.")] = Path(),
) -> None:
    """Write a package with a component of your own, to begin from.

    It has a test and a gin file.
    """
    from rrl.commands import new as package

    package.write(kind, name, into, typer.echo)


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(autocompletion=completion.kinds, help="Only this kind, such as encoder; or policies, or files."),
    ] = None,
) -> None:
    """List components, shipped policies and shipped gin files."""
    if kind == "files":  # which need no component, and so no torch
        from rrl.commands import contents

        contents.show(typer.echo)
        return
    from rrl.commands import listing

    listing.show(kind, typer.echo)


@app.command()
def describe(
    name: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.components, help="A component or one of its settings, such as DAPG.gamma."
        ),
    ],
) -> None:
    """Show a component's settings with types, defaults and meanings."""
    from rrl.config import ginfile

    typer.echo(ginfile.describe(name))


@app.command()
def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[COMPONENT]",
            autocompletion=completion.components,
            help="A component, such as DAPG; none: all of them.",
        ),
    ] = None,
) -> None:
    """Print the settings of components as JSON Schema, for editors.

    It is that of `rrl show --json`'s values: a component stands there as '@Name()', as in gin files.
    """
    import json

    from rrl.config import schema as schemas

    typer.echo(json.dumps(schemas.of_all() if name is None else schemas.of_component(name), indent=2))


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65_535)] = 5000) -> None:
    """Open MLflow's UI on this folder's runs (this machine only)."""
    from rrl.commands.ui import open_ui

    open_ui(port, typer.echo)


@app.command()
def doctor() -> None:
    """Show what this machine offers.

    Rendering, torch, weights, demonstrations.
    """
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
    folder: Annotated[Path, typer.Argument(parser=path, help="Where to put the file.")] = Path(),
) -> None:
    """Download weights, to be carried to a machine without internet."""
    from rrl.encoders import weights

    typer.echo(weights.fetch(name, folder))
