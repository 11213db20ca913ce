"""The command line as users meet it: other folders, mistakes, weights, and the README's own commands."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from helpers.guides import blocks
from helpers.stores import prepared
from typer.main import get_command
from typer.testing import CliRunner

from rrl import cli, registry
from rrl.config import ginfile
from rrl.run import policies
from rrl.sweeps.plan import request
from rrl.sweeps.space import axis

ROOT = Path(__file__).parents[2]
COLUMNS = 80
TINY = (
    "Experiment.iterations = 1",
    "Experiment.num_envs = 1",
    "Experiment.workers = 1",
    "Experiment.threads = 1",
    "Experiment.evaluators = ()",
    "Adroit.horizon = 5",
    "Adroit.look = 'fast'",
    "DAPG.trajectories = 2",
    "DAPG.value_batch = 4",
    "DemoSet.episodes = 1",
    "ResNet.depth = 18",
)


def _groups(command, path=("rrl",)):
    if commands := getattr(command, "commands", {}):
        yield path, commands
    for name, inner in commands.items():
        yield from _groups(inner, (*path, name))


@pytest.mark.parametrize(("path", "commands"), _groups(get_command(cli.app)), ids=lambda value: " ".join(value))
def test_what_a_command_does_is_said_in_whole_on_its_line(path, commands):
    room = COLUMNS - 2 - 6 - max(map(len, commands))  # as click lays them out
    for name, command in commands.items():
        assert not command.get_short_help_str(room).endswith("..."), (*path, name)


def rrl(folder, *arguments):
    """Run the real command in a folder, with an empty weights cache and no internet."""
    env = dict(os.environ, TORCH_HOME=str(folder / "torch"), RRL_CACHE=str(folder / "cache"))
    env |= dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "-m", "rrl.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with empty caches."""
    monkeypatch.chdir(prepared(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def said(*arguments, sets=()):
    """What a command that succeeds says, in this process."""
    more = [part for setting in sets for part in ("--set", setting)]
    done = CliRunner().invoke(cli.app, [*arguments, *more])
    assert done.exit_code == 0, done.output
    return done.output


def only_run(folder):
    (path,) = (folder / "runs").glob("*/run.json")
    return path.parent


def tags(folder):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").get_run(only_run(folder).name)


def test_missing_weights_are_told_with_remedies(tmp_path):
    done = rrl(tmp_path, "run", "adroit_pen_resnet34")
    assert done.returncode == 2, done.stdout + done.stderr
    for remedy in ("rrl weights fetch resnet34", "ResNet.weights = '", "@MobileNetV2()", "None"):
        assert remedy in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_an_untrained_network_is_marked_everywhere(here):
    told = said("run", "adroit_pen_resnet34", sets=(*TINY, "ResNet.weights = None"))
    assert "WARNING: the encoder is UNTRAINED" in told
    assert f"done once, then kept in {here / 'cache'}" in told
    assert "ResNet18 (UNTRAINED)" in told  # the title: of the plot too
    run = tags(here)
    assert run.info.status == "FINISHED"
    assert run.data.tags["encoder.trained"] == "false"
    assert run.data.tags["encoder"] == "ResNet18 (UNTRAINED)"
    assert run.data.params["encoder.weights"] == "None"
    assert (only_run(here) / "learning_curve.png").stat().st_size > 5000
    assert "finished" in said("resume", only_run(here).name[:6])


def test_a_weights_file_is_used_and_tagged(here):
    torch.manual_seed(1)
    path = here / "mine.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    assert "UNTRAINED" not in said("run", "adroit_pen_resnet34", sets=(*TINY, f"ResNet.weights = '{path}'"))
    assert re.fullmatch(r"file:[0-9a-f]{12}", tags(here).data.tags["encoder.weights"])


LAYERS = ("env/dmc_cartpole_swingup", "env/dmc_state", "method/state_sac")
SMALL_SAC = ("Experiment.iterations = 2", "Experiment.log_every = 40", "Experiment.evaluators = ()")
SMALL_SAC += ("DMControl.horizon = 15", "SAC.hidden = (8,)", "SAC.init_steps = 4", "SAC.batch = 4", "SAC.replay = 100")


def test_several_names_are_one_run_that_can_be_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(prepared(tmp_path))
    Path("mine.gin").write_text("Experiment.seed = 5\n")
    sets = [part for setting in SMALL_SAC for part in ("--set", setting)]
    result = CliRunner().invoke(cli.app, ["run", *LAYERS, "mine.gin", *sets])
    assert result.exit_code == 0, result.output
    folder = only_run(tmp_path)
    facts = json.loads((folder / "run.json").read_text())
    assert ", simulate " in result.output and "waiting to" not in result.output  # a stepper's are no waiting
    assert facts["name"] == "dmc_cartpole_swingup+dmc_state+state_sac+mine-seed5"
    assert facts["source"] == " ".join([*LAYERS, "mine.gin"])
    whole = ginfile.load(folder / "config.gin")
    assert ginfile.flatten(whole)["agent.hidden"] == "(8,)"
    Path("mine.gin").unlink()  # config.gin is whole
    longer = CliRunner().invoke(cli.app, ["resume", folder.name, "--iterations", "3"])
    assert longer.exit_code == 0, longer.output
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


NO_TIME = [
    (*words, "--budget", zero)
    for words, zero in (
        (("run", "quickstart"), "0s"),
        (("resume", "abc"), "0.0m"),
        (("sweep", "quickstart"), "0h"),
        (("pretrain", "pretrain/vae_adroit_door"), "0s"),
        (("reproduce", "fig4"), "0s"),
        (("reproduce", "fig5_left"), "0s"),
    )
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "adroit_pen_resnet43"), "adroit_pen_resnet34"),
        (("run", "quickstart", "--set", "ResNet.dept = 18"), "depth"),
        (("run", "quickstart", "--set", "Adroit.task = 'dor'"), "did you mean"),
        (("run", "quickstart", "--set", "DemoSet.source = 'nowhere'"), "nowhere.npz\n  name a shipped set"),
        (("run", "quickstart", "--budget", "soon"), "30m"),
        *((words, "more than no time") for words in NO_TIME),
        (("demos", "make", "adroit_door_expert", "."), ". is a folder"),
        (("demos", "render", ".", "a.mp4"), ". is a folder"),
        (("bench", "compute", "--chart", "."), ". is a folder"),
        (("bench", "compute", "--chart", "cost.mp4"), "a chart is a .png"),
        (("run", "env/dmc_walker_walk", "encoder/mobilenetv2"), "from method/ over it: method/bc, method/curl"),
        (("run", "sweeps/fig4_door", "env/adroit_fast"), "rrl sweep sweeps/fig4_door"),
        (("check", "base/rrl"), "it is now method/rrl"),
        (("resume", "abc"), "there is no run abc"),
        (("check", "nothing.gin"), "nothing.gin"),
        (("list", "robots"), "encoder"),
        (("describe", "Resnet"), "ResNet"),
        (("demos", "verify", "nothing"), "no demonstrations"),
        (("demos", "make", "nothing", "out"), "adroit_door_expert"),
        (("demos", "import", "door.pickle", "out"), "there is no file door.pickle"),
        (("demos", "render", "adroit_door_paper", "a.mp4", "--camera", "topp"), "did you mean 'top'"),
        (("demos", "render", "adroit_door_paper", "a.mp4", "--episodes", "one"), "0,1,2"),
        (("demos", "export", "nothing", "rrl/door/a-v0"), "no demonstrations"),
        (("eval", "nothing"), "adroit_door_expert"),
        (("export", "nothing", "--policy", "a.safetensors"), "no run or sweep"),
        (("export", "nothing", "--encoder", "a.safetensors", "--best"), "the last"),
        (("check", "dmc_cartpole_swingup_rad", "--set", "SAC.batch = 64"), "did you mean RAD.batch?"),
        (("check", "dmc_cartpole_swingup_rad", "--set", "Experiment.demos = @DemoSet()"), "@FERM()"),
        (("check", "dmc_cartpole_swingup_fixed_rad"), "rrl export RUN --encoder"),
        (("check", "env/adroit_door", "encoder/r3m", "method/rrl"), "get it from https://pytorch.s3.amazonaws.com/"),
        (("ui",), "start a run in this folder first"),
    ],
)
def test_mistakes_exit_2_without_a_traceback(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, list(arguments))
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("set_by_user", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_briefly_unless_the_user_says_otherwise(monkeypatch, set_by_user, expected):
    """`benchmarks/busy_cores.py` shows what it is for."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # to have it restored
        monkeypatch.delenv(name)
    for name, value in set_by_user.items():
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(cli.app, ["list"]).exit_code == 0
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_list_and_check_and_describe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = CliRunner().invoke(cli.app, ["list"])
    for name in (
        "Adroit",
        "DMControl",
        "ResNet",
        "MobileNetV2",
        "State",
        "NPG",
        "DAPG",
        "BC",
        "SuccessRate",
        "quickstart",
        "env/dmc_walker_walk",
        "method/rad",
        "rrl run env/X encoder/Y method/Z",
    ):
        assert name in listed.output
    checked = CliRunner().invoke(cli.app, ["check", "dmc_walker_walk_rad"])
    assert CliRunner().invoke(cli.app, ["check", "dmc_walker_walk_rad", "env/dmc_walker_walk"]).output == checked.output
    checked = CliRunner().invoke(cli.app, ["check", "adroit_hammer_state", "--set", "DAPG.lam_0 = 0.1"])
    assert checked.exit_code == 0
    assert ginfile.loads(checked.output) == ginfile.load("adroit_hammer_state", ["DAPG.lam_0 = 0.1"])
    assert "twice the KL" in CliRunner().invoke(cli.app, ["describe", "DAPG"]).output


def test_check_tells_what_config_gin_leaves_out(tmp_path, monkeypatch):
    """Newer settings at their default, as comments: the text is the same configuration."""
    monkeypatch.chdir(tmp_path)
    text = said("check", "adroit_door_ferm", sets=("FERM.bc_weight = 2.0", "FERM.demo_share = 0.5"))
    config = ginfile.load("adroit_door_ferm", ["FERM.bc_weight = 2.0", "FERM.demo_share = 0.5"])
    assert ginfile.loads(text) == config
    own, comments = ([line for line in text.splitlines() if line.startswith("#") == such] for such in (False, True))
    assert "\n".join(own) == ginfile.dumps(config).rstrip("\n")
    unsaid = {f"{part.component.__name__}.{name}" for part in (config, config.env, config.agent) for name in part.later}
    told = {line.removeprefix("# at its default: ").partition(" = ")[0] for line in comments}
    assert told == unsaid - {"FERM.bc_weight", "FERM.demo_share"}
    assert "# at its default: FERM.critic_norm = False" in comments


def test_shipped_policies_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = said("list", "policies")
    assert alone in said("list") and "encoder:" not in alone
    rows = {line.split()[0]: line for line in alone.splitlines()[1:]}
    assert rows.keys() == policies.shipped().keys()
    assert rows["adroit_door_mobilenetv2"].endswith("MobileNetV2, DAPG, 45 updates")
    page = (ROOT / "docs" / "policies.md").read_text()
    assert all(f"`{name}`" in page for name in rows)


GUIDES = ("your_agent", "your_encoder", "your_environment", "your_evaluator", "your_task", "your_training", "tutorial")
"""Followed to the letter, in test_guides."""
PAGES = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.stem not in GUIDES)]


def readme_commands():
    """Lines of code blocks that begin with rrl, of the README and the documentation's pages."""
    text = "\n".join(page.read_text() for page in PAGES).replace("\\\n", " ")
    return re.findall(r"^(?: {4})(?:\$ )?((?:\.venv/bin/)?rrl [a-z-].*)$", text, re.M)


def test_the_readmes_figures_are_among_the_results():
    """Of every rate and count of episodes in the README and the short results, the notes say where it comes from."""
    figure = re.compile(r"\d+(?:\.\d+)? %|\d+ of \d+|\d+ min \d+ s|\d[\d,]* (?:steps|episodes)")
    notes = " ".join(" ".join(page.read_text() for page in (ROOT / "docs" / "notes").glob("*.md")).split())
    short = (ROOT / "README.md", ROOT / "docs" / "results.md")
    found = figure.findall(" ".join(" ".join(page.read_text() for page in short).split()))
    assert len(found) > 10
    assert [each for each in found if each not in notes] == []


def test_ferms_rows_say_what_their_files_expect():
    """Of each file that the page's table names, the header has the success with the mean action."""
    page = (ROOT / "docs" / "shipped.md").read_text()
    rows = re.findall(r"`rrl run (results/door_ferm\w*)` \| ([\d.]+) %", page)
    assert [name for name, _ in rows] == [f"results/door_ferm{kind}" for kind in ("_bc", "_imitation", "")]
    for name, success in rows:
        header = ginfile.find(name).read_text().partition("\n\n")[0]
        assert float(success) in [float(each) for each in re.findall(r"([\d.]+) %", header)], name


def test_the_pages_gin_files_are_what_they_say():
    """The quickstart as it is shipped, and a file of one's own."""
    quickstart, own = blocks((ROOT / "docs" / "configuration.md").read_text())[:2]
    assert own in blocks((ROOT / "README.md").read_text())
    assert quickstart == (ROOT / "gin" / "quickstart.gin").read_text().split("\n\n", 1)[1]
    assert ginfile.loads(own) == ginfile.load("ablations/door_resnet18")


def test_the_readme_shows_commands():
    assert len(readme_commands()) > 5


@pytest.mark.usefixtures("cartpole_rad")
@pytest.mark.parametrize("line", readme_commands())
def test_readme_commands_are_as_the_program_takes_them(line):
    """Runs would take hours: their configuration is loaded; of other commands the words are checked."""
    words = shlex.split(line, comments=True)[1:]
    if words[:1] in (["run"], ["check"]):
        sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        names = words[1 : next((i for i, word in enumerate(words) if word.startswith("--")), None)]
        try:
            found = [name.removeprefix("gin/") for name in names]
            ginfile.load(found, sets, finder=lambda component, mark, text, folders: text)  # files of the reader's
        except ginfile.ConfigError as error:  # shown on purpose: then the README quotes what it says
            pages = " ".join(" ".join(page.read_text() for page in PAGES).split())
            for problem in error.problems:
                assert problem.message in pages
    if words[:1] == ["sweep"]:
        sources = words[1 : next((i for i, word in enumerate(words) if word.startswith("--")), None)]
        _, sweep = request([str(ROOT / s) if s.startswith("gin/") else s for s in sources])
        for text in (words[i + 1] for i, word in enumerate(words) if word == "--grid"):
            axis(text)
        assert sweep.files
    command = words[:2] if words[0] in ("bench", "demos", "weights") else words[:1]
    usage = CliRunner().invoke(cli.app, ["--help"] if command[0].startswith("-") else [*command, "--help"])
    assert usage.exit_code == 0, usage.output
    for word in words:
        if word.startswith("--") and word != "--help":
            assert word.split("=")[0] in usage.output


@pytest.mark.usefixtures("cartpole_rad")
def test_all_shipped_files_load_and_differ():
    runnable = [name for name in ginfile.shipped() if "/" not in name]
    assert {f"adroit_{t}_{e}" for t in ("pen", "door", "hammer", "relocate") for e in ("resnet34", "state")} <= {
        *runnable
    }
    texts = {name: ginfile.dumps(ginfile.load(name)) for name in runnable}
    assert len(set(texts.values())) == len(texts)


def test_paper_settings():
    """The paper's hyperparameter table and budgets, as the shipped files set them."""
    for task, trajectories, iterations in (
        ("pen", 400, 300),
        ("door", 200, 200),
        ("hammer", 200, 200),
        ("relocate", 200, 300),
    ):
        config = ginfile.load(f"adroit_{task}_resnet34")
        flat = ginfile.flatten(config)
        expected = {
            "encoder": "ResNet",
            "encoder.depth": "34",
            "precision": "fp32",
            "env.look": "default",
            "env.protocol": "paper",
            "env.reward": "sparse",
            "env.state": "joints",
            "agent": "DAPG",
            "agent.policy_hidden": "(256, 256)",
            "agent.step_size": "0.05",
            "agent.gamma": "0.995",
            "agent.gae_lambda": "0.97",
            "agent.bc_epochs": "5",
            "agent.bc_batch": "32",
            "agent.bc_lr": "0.001",
            "agent.value_epochs": "2",
            "agent.value_batch": "64",
            "agent.value_lr": "0.001",
            "agent.value_weight_decay": "0.001",
            "agent.lam_0": "0.01",
            "agent.lam_1": "0.95",
            "agent.trajectories": str(trajectories),
            "iterations": str(iterations),
        }
        assert {name: flat[name] for name in expected} == expected
        assert config.demos is not None
        assert config.demos.episodes is None  # all 25


def test_rendering_before_torch_does_not_crash():
    """Mesa's and triton's LLVM clash unless triton's library is loaded first (see `gl._load_triton`)."""
    script = (
        "from rrl.envs import gl; gl.choose_backend(); gl.context(); import torch, torchvision\n"
        "p = torch.nn.Parameter(torch.ones(2)); o = torch.optim.Adam([p]); p.sum().backward(); o.step()\n"
        "print(p.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0] < 1


OUTPUTS = (
    ("eval", "adroit_door_expert", "--json"),
    ("eval", "adroit_door_expert", "--video"),
    ("export", "abc", "--policy"),
    ("export", "abc", "--encoder"),
    ("demos", "make", "adroit_door_expert"),
    ("demos", "import", "door.pickle"),
    ("demos", "render", "adroit_door_paper"),
    ("report", "--out"),
    ("reproduce", "fig4", "--task", "door", "--run", "abc", "--out"),
    ("bench", "updates", "--json"),
)


@pytest.mark.parametrize("command", OUTPUTS, ids=" ".join)
@pytest.mark.parametrize("place", ["folder.mp4", "taken.mp4", "file/x.mp4", "~/taken.mp4", "~nobody-here/x.mp4"])
def test_what_can_not_be_written_is_refused_before_the_work(tmp_path, monkeypatch, command, place):
    """And what a user made stays as it is. (Sets of demonstrations and videos end in .npz and .mp4.)"""
    work, home = tmp_path / "work", tmp_path / "home"
    place = place.replace(".mp4", ".npz") if command[:2] in (("demos", "make"), ("demos", "import")) else place
    for folder in (work, home):
        (folder / f"folder{Path(place).suffix}").mkdir(parents=True)
        for name in ("file", "taken.mp4", "taken.npz"):
            (folder / name).write_text("a user's own")
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    before = sorted(work.iterdir())
    result = CliRunner().invoke(cli.app, [*command, place])
    assert result.exit_code == 2, result.output
    wanted = ("is a folder", "exists", "is no folder", "no home folder")
    assert any(words in result.output for words in wanted) and "Traceback" not in result.output
    assert sorted(work.iterdir()) == before
    assert {path.read_text() for path in tmp_path.glob("*/taken.*")} == {"a user's own"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "~/a.gin"),
        ("run", "~/a.gin"),
        ("sweep", "~/a.gin", "--dry-run"),
        ("sweep", "~/folder"),
        ("resume", "~/a"),
        ("report", "~/a"),
        ("eval", "~/a"),
        ("export", "~/a", "--policy", "b"),
        ("demos", "make", "~/a", "b"),
        ("demos", "import", "~/a.hdf5", "b", "--task", "door"),
        ("demos", "info", "~/a"),
        ("demos", "verify", "~/a"),
        ("demos", "render", "~/a", "b.mp4"),
        ("demos", "export", "~/a", "rrl/a/b-v0"),
        ("bench", "compute", "~/a.gin"),
    ],
    ids=" ".join,
)
def test_a_home_folder_that_the_shell_left_alone_is_meant(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder").mkdir()
    result = CliRunner().invoke(cli.app, list(arguments))
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert str(tmp_path) in result.output and "~" not in result.output


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = CliRunner().invoke(cli.app, ["check", "quickstart"])
    assert result.exit_code == 2 and "cd to another" in result.output


def test_without_docstrings_components_are_listed_and_described_all_the_same(monkeypatch):
    """`python -OO` strips them."""
    for name in registry.names():
        monkeypatch.setattr(registry.get(name), "__doc__", None)
    for words in (["list"], ["describe", "ResNet"], ["check", "adroit_door_state"]):
        result = CliRunner().invoke(cli.app, words)
        assert result.exit_code == 0 and re.search("ResNet|DAPG", result.output), result.output


def test_python_starts_it_as_a_module(tmp_path):
    done = subprocess.run([sys.executable, "-m", "rrl", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Usage: rrl [OPTIONS]"), done.stderr


@pytest.mark.parametrize("text", ["²", "0,x", "1.5", "-1", "٣"])
def test_seeds_are_plain_whole_numbers(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["sweep", "adroit_door_state", "--seeds", text])
    assert done.exit_code == 2 and not list(tmp_path.iterdir())
    assert "takes whole numbers with commas between" in " ".join(done.output.replace("│", " ").split())


def test_the_ui_on_a_taken_port_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(prepared(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(cli.app, ["ui", "--port", str(port)])
    assert done.exit_code == 2
    assert f"port {port} of this machine can't be used (Address already in use): take another --port" in done.output
