"""Visual distractors: a policy in the same episodes with other pictures, and what is told of it."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.guides import blocks
from helpers.lines import Lines
from helpers.small_policies import PIXELS, saved
from PIL import Image
from plugins.encoder96 import Attention96  # noqa: F401 (registers it)

from rrl.commands import policies
from rrl.envs.adroit import Adroit
from rrl.envs.base import FrameRequest
from rrl.envs.dmcontrol import DMControl
from rrl.envs.scene import KINDS, OTHERS
from rrl.evaluators.distractors import VisualDistractors, unshown
from rrl.evaluators.outcomes import Outcome
from rrl.registry import UserError
from rrl.score import RETURN, success

RUN = PIXELS.format(encoder="Attention96", evaluators="") + "Experiment.num_envs = 3\nExperiment.threads = 1\n"
FEW = ("VisualDistractors.episodes = 3", "VisualDistractors.films = 0")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policies, "cores", lambda: 0)  # evaluated in this process
    saved(tmp_path / "policy.safetensors", RUN, 24, 28)
    return tmp_path


def evaluated(*overrides, few=FEW):
    lines = Lines()
    found = policies.evaluate("policy.safetensors", lines, other="eval/distractors", overrides=[*few, *overrides])
    return found, lines.lines


def test_what_it_tells_and_leaves(project):
    kinds = ("light direction", "patch")
    settings = (f"VisualDistractors.kinds = {kinds}", "VisualDistractors.severities = (0.0, 1.0)")
    found, said = evaluated(*settings)
    conditions = [f"{kind}{suffix}".replace(" ", "_") for kind in kinds for suffix in (" x0", "")]
    for name in ("nominal", *conditions):
        low, mean, high = (found[f"distractors/{name}/success{end}"] for end in ("_low", "", "_high"))
        assert low <= mean <= high
    for name in conditions:
        assert found[f"distractors/{name}/change_low"] < found[f"distractors/{name}/change"] + 1e-9
    assert any(line.startswith("light direction: success 0 (0 to 56) %, +0 (") for line in said), said
    (folder,) = Path("runs/evaluations").glob("policy-*/distractors-*")
    sheet = Image.open(folder / "pictures" / "000000_distractors_sheet.png")
    assert sheet.size == (3 * 160, 5 * 160)
    rows = np.asarray(sheet).reshape(5, 160, 480, 3)[:, 30:]  # without captions
    same = [np.array_equal(row, rows[0]) for row in rows[1:]]
    assert same == [True, False] * 2  # severity 0 is the nominal scene
    for suffix in ("png", "svg"):
        assert (folder / "pictures" / f"000000_distractors.{suffix}").stat().st_size > 5000
    with (folder / "pictures" / "000000_distractors.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 5 * 3 and json.loads(lines[-1]["scene"])["effect"]["patch"]
    with (folder / "pictures" / "000000_distractors_drops.csv").open() as file:
        drops = list(csv.DictReader(file))
    asked = [("nominal", 0.0), *((kind, severity) for kind in kinds for severity in (0.0, 1.0))]
    assert [(drop["kind"], float(drop["severity"])) for drop in drops] == asked
    ends = [float(drops[-1][f"change{end}"]) for end in ("", "_low", "_high")]
    assert ends == [found[f"distractors/patch/change{end}"] for end in ("", "_low", "_high")]
    assert "nominal" in (table := next(line for line in said if line.startswith("condition "))) and "patch x0" in table
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers["metrics"] == found and numbers["evaluators"][0]["episodes"] == "3"
    # Again: everything is there.
    pieces = folder.parent / "distractors" / "pieces"
    before = {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()}
    again, _ = evaluated(*settings)
    assert again == found
    assert {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()} == before


def test_the_page_says_what_there_is(project):
    """Its file of four lines, every kind of change, every column."""
    page = (Path(__file__).parents[2] / "docs" / "evaluations.md").read_text()
    Path("camera.gin").write_text(next(block for block in blocks(page) if block.startswith("# camera.gin")))
    policies.evaluate(
        "policy.safetensors", Lines(), other="camera.gin", overrides=[*FEW[1:], "VisualDistractors.episodes = 1"]
    )
    tables = sorted(Path("runs").rglob("*.csv"))
    columns = {name for path in tables for name in csv.DictReader(path.open()).fieldnames}
    assert len(tables) == 2 and [name for name in columns if f"`{name}`" not in page] == []
    with tables[0].open() as file:
        told = [(line["condition"], json.loads(line["scene"]).keys()) for line in csv.DictReader(file)]
    assert told == [("nominal", set()), ("camera x0.5", {"eye"})]
    rows = [row.split("`")[1] for row in page.splitlines() if row.startswith("| `")]
    assert rows == [*KINDS, *OTHERS]


def test_each_condition_is_filmed(project):
    kinds = "VisualDistractors.kinds = ('brightness',)"
    evaluated(kinds, few=("VisualDistractors.episodes = 1",))
    films = sorted(path.name for path in Path("runs").rglob("*.mp4"))
    assert films == [f"000000_{name}.mp4" for name in ("brightness", "nominal")]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["VisualDistractors.kinds = ('fog',)"], "VisualDistractors.kinds has 'fog': it knows 'light position', "),
        (["VisualDistractors.kinds = ()"], "VisualDistractors.kinds"),
        (["VisualDistractors.severities = (2.5,)"], "VisualDistractors.severities"),
        (
            ["VisualDistractors.objects = ('frame', 'lach')"],
            r"that can be seen is called 'lach'; closest first, there are latch, (\w+, ){18}\w+ \(",
        ),
    ],
)
def test_mistakes_are_told(overrides, told, project):
    with pytest.raises(UserError, match=told):
        evaluated(*overrides)


def test_what_an_environment_cannot_show_is_said():
    assert unshown(Adroit(Adroit.Config(task="pen", look="fast")), frames=FrameRequest(64, 64)) == {}
    # Relocate's table is hidden, and its cameras stand too low to show the ground.
    hidden = unshown(Adroit(Adroit.Config(task="relocate", look="fast")), frames=FrameRequest(64, 64))
    assert hidden == {"surface": "it changes nothing that a camera of this environment shows"}
    relocate, said = Adroit(Adroit.Config(task="relocate", look="fast")), []
    context = SimpleNamespace(frames=FrameRequest(64, 64), say=said.append)
    two, one = (VisualDistractors(VisualDistractors.Config(kinds=k)) for k in (("surface", "patch"), ("surface",)))
    assert two._kinds(relocate, context) == ["patch"] and "no visual change 'surface'" in said.pop()
    with pytest.raises(UserError, match=r"shows nothing of VisualDistractors\.kinds"):
        one._kinds(relocate, context)
    refused = unshown(DMControl(DMControl.Config(domain="cartpole", task="swingup")))
    assert set(refused) <= set(KINDS) | {"surface"} and all(refused.values())


# ---- statistics


def test_outcomes_have_paired_differences():
    score = success("success", 3)
    a, b = Outcome([1, 1, 0, 1], score), Outcome([1, 0, 0, 0], score)
    assert (a.mean, b.mean) == (75, 25)
    change, low, high = a.minus(b)
    assert change == 50 and low < 50 < high
    back = b.minus(a)
    assert back == pytest.approx((-50, -high, -low))
    same, low, high = a.minus(a)
    assert same == 0 and low < 0 < high  # four pairs that agree prove nothing
    values = Outcome([1.5, 2.5], RETURN)
    assert values.mean == 2 and values.minus(Outcome([1.0, 1.0], RETURN))[0] == 1
