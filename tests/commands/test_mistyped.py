"""Mistyped command lines: each is told with the line to type, which then works."""

import os
import random
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from rrl import cli
from rrl.commands import mistyped, typed
from rrl.registry import UserError

PEN, EYES = "adroit_pen_state", "adroit_pen_resnet34"
RAD = "dmc_cartpole_swingup_rad"
MISTYPED = [
    # settings
    (f"check {PEN} --set Experiment.seed = 3", f'check {PEN} --set "Experiment.seed = 3"'),
    (f"check {PEN} --set Experiment.seed =3 --set DAPG.gamma= 0.9", None),
    (f"check {PEN} --set DAPG.policy_hidden = '(32,' '32)'", f'check {PEN} --set "DAPG.policy_hidden = (32, 32)"'),
    (f"check {PEN} Experiment.seed=3", f"check {PEN} --set Experiment.seed=3"),
    (f"check {PEN} Experiment.seed = 3", f'check {PEN} --set "Experiment.seed = 3"'),
    (f"check {PEN} --seed 3", f'check {PEN} --set "Experiment.seed = 3"'),
    (f"run {PEN} --iterations=3", f'run {PEN} --set "Experiment.iterations = 3"'),
    (f"run {PEN} --device cuda", f"run {PEN} --set \"Experiment.device = 'cuda'\""),
    (f"check --num-envs 4 {PEN}", f'check {PEN} --set "Experiment.num_envs = 4"'),
    (f"check {PEN} --step_size 0.05 --threads 2", None),
    (f"check {RAD} --batch 64", f'check {RAD} --set "RAD.batch = 64"'),
    (f"check {EYES} --ResNet.depth 34", f'check {EYES} --set "ResNet.depth = 34"'),
    (f"check {PEN} --DAPG.step-size=0.1", f'check {PEN} --set "DAPG.step_size = 0.1"'),
    (f"check {PEN} -s Experiment.seed=3", f"check {PEN} --set Experiment.seed=3"),
    (f"check {PEN} --gin_bindings 'Experiment.seed = 3'", f'check {PEN} --set "Experiment.seed = 3"'),
    (f"check {EYES} --set ResNet.depth:34", f'check {EYES} --set "ResNet.depth = 34"'),
    (f"check {EYES} --set 'ResNet.depth == 34'", f'check {EYES} --set "ResNet.depth = 34"'),
    (f"check {EYES} --set Resnet.depth=34", f'check {EYES} --set "ResNet.depth = 34"'),
    (f"check {EYES} --set ResNet.dept=34", f'check {EYES} --set "ResNet.depth = 34"'),
    (f"check {EYES} --set depth=34", f'check {EYES} --set "ResNet.depth = 34"'),
    (f"check {EYES} --set 'Experiment.encoder = ResNet'", f'check {EYES} --set "Experiment.encoder = @ResNet()"'),
    (f"check {EYES} --set 'Experiment.encoder = @ResNet'", f'check {EYES} --set "Experiment.encoder = @ResNet()"'),
    (f"check {EYES} --set 'Experiment.encoder = @resnet()'", f'check {EYES} --set "Experiment.encoder = @ResNet()"'),
    (f"check {PEN} --set 'Adroit.task = door'", f"check {PEN} --set \"Adroit.task = 'door'\""),
    (f"check {PEN} --set 'Adroit.task = “pen”'", f"check {PEN} --set \"Adroit.task = 'pen'\""),
    (f"check {PEN} --set “Experiment.seed = 3”", f'check {PEN} --set "Experiment.seed = 3"'),
    (f"check {PEN} --set 'Experiment.workers = null'", f'check {PEN} --set "Experiment.workers = None"'),
    (f"check {PEN} --set 'DAPG.policy_hidden = 64, 64'", f'check {PEN} --set "DAPG.policy_hidden = (64, 64)"'),
    (f"check {PEN} --set 'Experiment.iterations = 1,000'", f'check {PEN} --set "Experiment.iterations = 1000"'),
    (f"check {PEN} --set", f'check {PEN} --set "Component.field = value"'),
    # several values
    (f"run {PEN} --set Experiment.seed=1,2,3", f"sweep {PEN} --seeds 1,2,3"),
    (f"run {PEN} -m DAPG.gamma=0.9,0.99", f'sweep {PEN} --grid "DAPG.gamma = (0.9, 0.99)"'),
    (f"run {PEN} --seeds 0,1", f"sweep {PEN} --seeds 0,1"),
    (f"sweep {PEN} --seed 3 --dryrun", f"sweep {PEN} --seeds 3 --dry-run"),
    (f"sweep {PEN} --seeds 0-2", f"sweep {PEN} --seeds 0,1,2"),
    (f"sweep {PEN} --seeds 0 1 2", f"sweep {PEN} --seeds 0,1,2"),
    (f"sweep {PEN} --seeds [0,1,2]", f"sweep {PEN} --seeds 0,1,2"),
    (f"sweep {PEN} --grid DAPG.gamma=0.9,0.99", f'sweep {PEN} --grid "DAPG.gamma = (0.9,0.99)"'),
    (f"sweep {PEN} --grid DAPG.gamma = '(0.9,' '0.99)'", f'sweep {PEN} --grid "DAPG.gamma = (0.9, 0.99)"'),
    (f"sweep {PEN} --backend loca", f"sweep {PEN} --backend local"),
    # commands, files and runs
    ("train x.gin", "run x.gin"),
    (f"runn {PEN} --seed 3", f'run {PEN} --set "Experiment.seed = 3"'),
    (PEN, f"run {PEN}"),
    ("demo info", "demos info"),
    ("demos inf", "demos info"),
    ("render mine b.mp4", "demos render mine b.mp4"),
    ("help run", "run --help"),
    ("--list", "list"),
    ("run gin/adroit_pen_resnet35.gin", "run adroit_pen_resnet34"),
    ("run env/adroit_door base/rll", "run env/adroit_door method/rrl"),
    (f"check --config {PEN}", f"check {PEN}"),
    (f"run {PEN} --budget 2 h", f"run {PEN} --budget 2h"),
    (f"run {PEN} --budget 1h30m", f"run {PEN} --budget 90m"),
    (f"run {PEN} --budget 30", f"run {PEN} --budget 30m"),
    (f"run {PEN} --buget 30m", f"run {PEN} --budget 30m"),
    ("run --resume abcd", "resume abcd"),
    ("resume", "resume RUN"),
    (f"resume {PEN}", f"run {PEN}"),
    ("eval quickstart.gin", "run quickstart"),
    ("run 0123456789abcdef", "resume 0123456789abcdef"),
    ("report runs/", "report"),
    ("eval nothing --episode 3", "eval nothing --episodes 3"),
    ("reproduce fig4 pen", "reproduce fig4 --task pen"),
    ("bench rendering pen", "bench rendering --task pen"),
    ("demos render adroit_door_paper", "demos render adroit_door_paper OUT"),
    ("demos verify adroit_door_papr", "demos verify adroit_door_paper"),
    ("weights fetch resnet33", "weights fetch resnet34"),
    ("list encoders", "list encoder"),
    ("list envs", "list environment"),
    ("list ResNet", "describe ResNet"),
    ("describe resnet", "describe ResNet"),
    ("describe dapg.gama", "describe DAPG.gamma"),
    ("describe DAPG.gama", "describe DAPG.gamma"),
    ("describe quickstart", "check quickstart"),
    ("try quickstart", "inspect quickstart"),
    ("leaderboard probe/adroit_pen", "probe probe/adroit_pen"),
    ("probe probe/adroit_pen --seed 3", 'probe probe/adroit_pen --set "Probe.seed = 3"'),
    ("probe probe/adroit_pen --look default", "probe probe/adroit_pen --set \"Adroit.look = 'default'\""),
    ("probe probe/adroit_pen --dryrun", "probe probe/adroit_pen --dry-run"),
    ("inspect quickstart --pictur a.png", "inspect quickstart --picture a.png"),
    ("inspect quikstart", "inspect quickstart"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where one run is kept."""
    monkeypatch.chdir(tmp_path)
    Path("runs/0123456789abcdef").mkdir(parents=True)
    Path("runs/0123456789abcdef/run.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(("typed", "meant"), MISTYPED, ids=[typed for typed, _ in MISTYPED])
def test_the_line_to_type_is_told(folder, typed, meant):
    done = CliRunner().invoke(cli.app, shlex.split(typed))
    assert done.exit_code == 2 and done.output.startswith("error: "), done.output
    assert "Traceback" not in done.output and "Input should" not in done.output
    told = done.output.splitlines()[-1]
    assert told.startswith("  try: rrl ") and (meant is None or told == f"  try: rrl {meant}")
    words = shlex.split(told.removeprefix("  try: rrl "))
    if words[0] in ("check", "list", "describe") and "value" not in words[-1]:
        again = CliRunner().invoke(cli.app, words)
        assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("ui --port abc", "--port takes a whole number >= 1 and <= 65535; got abc"),
        (f"sweep {PEN} --jobs 0", "--jobs takes a whole number >= 1 and <= 1024; got 0"),
        ("demos make a b --action-noise loud", "--action-noise takes a number >= 0.0 and <= 10.0; got loud"),
        ("doctor now", "rrl doctor takes fewer words: now is one too many"),
        (f"run {PEN} --frobnicate 3", "rrl run has no option --frobnicate"),
        (f"check {PEN} --set Nothing.at_all=3", "no component is named Nothing"),
        ("frobnicate", "rrl has no command frobnicate"),
        ("resume", "rrl resume needs RUN: A run id, the beginning of one, or a run's folder."),
        ("demos render adroit_door_paper a.mp4 --look pretty", "Adroit.look must be 'default', 'balanced' or 'fast'"),
        (f"sweep {PEN} --search bayes --trials 3", "--search takes grid, random, optuna; got bayes"),
    ],
)
def test_mistakes_are_told_in_plain_words(folder, typed, told):
    done = CliRunner().invoke(cli.app, shlex.split(typed))
    assert done.exit_code == 2 and told in done.output, done.output
    assert "Input should" not in done.output and "Traceback" not in done.output
    if typed != "resume":
        assert "try:" not in done.output  # better no line than a wrong one


def test_a_right_line_gets_no_other(folder):
    """What fails for other reasons is not the words' fault."""
    words = ["run", EYES, "--set", "ResNet.weights = 'gone.pth'", "--name", "a b", "--budget", "3m"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 2 and "there is no file" in done.output
    assert "try:" not in done.output


def test_any_words_are_told_something(folder):
    """Whatever comes together: reading it again must not fail."""
    rng, app = random.Random(0), get_command(cli.app)
    pieces = (
        f"run sweep demos make --set --grid --seeds -m = Experiment.seed 3 a= ( {PEN} -- - --x= : “ --budget 2 h runs"
    )
    pieces = (*pieces.split(), "check", "--help", "list", "**", "/", "", "eval", "describe", "--ResNet.depth")
    for _ in range(150):
        told = mistyped.told(UserError("no"), app, [rng.choice(pieces) for _ in range(rng.randrange(7))])
        assert told == "no" or "\n  try: rrl " in told


def test_words_are_quoted_for_the_shell():
    for word in (
        "a.gin",
        "Experiment.seed = 3",
        "it's $HOME",
        'say "x"',
        "Adroit.task = 'pen'",
        os.fspath(Path("ä b")),
    ):
        assert shlex.split(typed.quoted(word)) == [word]
