"""The shipped gin files: all load, and an ablation changes what it says and nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from rrl import registry
from rrl.config import ginfile
from rrl.config.grammar import Binding, Include, parse
from rrl.config.words import literal
from rrl.envs import Gymnasium

GIN = Path(__file__).resolve().parents[2] / "gin"
ABLATIONS = sorted((GIN / "ablations").glob("*.gin"))
RESULTS = sorted((GIN / "results").glob("*.gin"))
RUNNABLE = sorted(GIN.glob("*.gin")) + ABLATIONS + RESULTS


pytestmark = pytest.mark.usefixtures("cartpole_rad")


def name(path):
    return path.relative_to(GIN).with_suffix("").as_posix()


def statements(path):
    """(bindings, paths of included files) of one file."""
    found, error = parse(path.read_text(), path.name)
    assert error is None
    includes = [(path.parent / str(each.path)).resolve() for each in found if isinstance(each, Include)]
    return [each for each in found if isinstance(each, Binding)], includes


def included(path):
    """All files that this one includes, however deep."""
    below = statements(path)[1]
    return {*below}.union(*(included(each) for each in below))


def changes(parent, child):
    """`Component.field` of all that differs; of a component that was exchanged, only that it was."""
    different = {key for key in parent.keys() | child.keys() if parent.get(key) != child.get(key)}
    top = [key for key in different if not any(key.startswith(f"{other}.") for other in different)]
    return {
        f"{parent[place] if place else 'Experiment'}.{field}"
        for place, _, field in (key.rpartition(".") for key in top)
    }


def test_there_are_ablations():
    assert len(ABLATIONS) >= 20


@pytest.mark.parametrize("path", RUNNABLE, ids=name)
def test_loads_and_has_a_header(path):
    flat = ginfile.flatten(ginfile.load(path))
    header = path.read_text().split("\n\n")[0].splitlines()
    assert all(line.startswith("# ") for line in header)
    assert any(line.startswith("# Expected: ") for line in header)
    assert any(line.startswith("# Cost: ") for line in header)
    if path in ABLATIONS:
        assert flat["env.task"] == path.stem.split("_")[0]
        assert flat["env.task"] in header[0]
        assert "figure" in header[0] or "authors' logs" in header[0]
    assert ginfile.load(name(path)) == ginfile.load(path)  # as a shipped file


def test_all_runs_differ():
    texts = [ginfile.dumps(ginfile.load(path)) for path in RUNNABLE]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("path", ABLATIONS, ids=name)
def test_ablation_changes_what_it_binds(path):
    own, (parent,) = statements(path)
    assert parent.parent == GIN  # the run that it is an ablation of
    before, after = (ginfile.flatten(ginfile.load(each)) for each in (parent, path))
    bound = {each.label for each in own}
    known = {*before.values(), "Experiment"}  # what the parent lacks comes with an exchanged component
    assert changes(before, after) == {label for label in bound if label.split(".")[0] in known}
    assert changes(before, after)


@pytest.mark.parametrize("path", RUNNABLE, ids=name)
def test_no_line_is_idle(path):
    lines = path.read_text().split("\n")
    whole = ginfile.load(path)
    for binding in statements(path)[0]:
        without = lines[: binding.place.line - 1] + lines[binding.place.line :]
        with contextlib.suppress(ginfile.ConfigError):  # refused without it
            assert ginfile.loads("\n".join(without), str(path)) != whole


def test_every_part_is_used():
    """But encoders, which are there to be laid over a run."""
    used = {name(path) for run in RUNNABLE for path in included(run)}
    laid_over = {part for field in ("encoder", "evaluators") for part in ginfile.fragments(f"Experiment.{field}")}
    assert {*ginfile.fragments()} - laid_over <= used


@pytest.mark.parametrize("part", ginfile.fragments())
def test_defaults_stand_in_the_schema_alone(part):
    """But where a part undoes what another has said."""
    undo = {
        "encoder/resnet34": {"Experiment.precision", "ResNet.depth"},
        "env/dmc_state": {"DMControl.state", "DMControl.look"},
        "env/gym_blank": {f"Gymnasium.{field}" for field in Gymnasium.Config.model_fields} - {"Gymnasium.id"},
        "env/gym_state": {"Gymnasium.state", "Gymnasium.state_indices"},
        "method/npg": {"Experiment.demos"},
        "method/success": {"Video.every"},
    }
    repeated = set()
    for binding in statements(GIN / f"{part}.gin")[0]:
        field = registry.get(binding.name).Config.model_fields[binding.field]
        if not field.is_required() and literal(binding.value) == literal(field.get_default(call_default_factory=True)):
            repeated.add(binding.label)
    assert repeated == undo.get(part, set())


@pytest.mark.parametrize("task", ["pen", "door", "hammer", "relocate"])
def test_npg_has_the_settings_of_dapg(task):
    """The paper has one table of hyperparameters for both."""
    dapg, npg = (
        ginfile.flatten(ginfile.load(each)) for each in (f"adroit_{task}_state", f"ablations/{task}_npg_state")
    )
    mine = {key: value for key, value in npg.items() if key.startswith("agent.")}
    assert mine
    assert mine == {key: dapg[key] for key in mine}
    assert (npg["agent"], npg["demos"]) == ("NPG", "None")


@pytest.mark.parametrize(
    "path", [path for path in ABLATIONS if "Offline:" in path.read_text()], ids=lambda path: path.stem
)
def test_offline_encoder_fits(path):
    """What the headers promise: one override where ResNet's weights cannot be had."""
    override = path.read_text().split('Offline: --set "')[1].split('"')[0]
    assert changes(ginfile.flatten(ginfile.load(path)), ginfile.flatten(ginfile.load(path, [override]))) == {
        "Experiment.encoder"
    }


def test_the_table_of_settings_leaves_nothing_out():
    """Defaults neither, nor what came later; encoders, and the part that is laid over FERM."""
    page = (GIN.parent / "docs" / "settings.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert rows["env.joint_noise_kind"].startswith("| `env.joint_noise_kind` | gaussian; multiplicative: ")
    for name in ("DAPG", "NPG", "SAC", "RAD", "CURL", "SACAE", "FERM", "ContrastiveCNN", "ResNet"):
        assert {*registry.get(name).Config.model_fields} <= rows.keys()
    adroit = page.split("## Adroit")[1].split("## DMControl")[0]
    assert "| `crop` |" in adroit and "| `picture` | 224 of 256 |" in adroit
    assert "| FERM, `method/ferm_imitation` |" in adroit and "| `demo_share` |  |  | None | 0.5 |" in adroit


def test_the_table_of_settings_is_up_to_date():
    import write_settings

    assert write_settings.page() == write_settings.OUT.read_text(encoding="utf-8"), (
        "run: python scripts/write_settings.py"
    )
