"""Parts of runs: each binds its own kind, and several names are laid over each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rrl import registry
from rrl.config import ginfile
from rrl.config.ginfile import ConfigError, flatten, flatten_text, load
from rrl.config.grammar import Binding, parse

GIN = Path(__file__).resolve().parents[2] / "gin"
ENVIRONMENTS = ginfile.fragments("Experiment.env")
METHODS = ginfile.fragments("Experiment.agent")
OWN_ENCODER = {"curl", "ferm", "fixed_rad", "rad", "sac_ae", "state_sac", "state_sac_rad"}

pytestmark = pytest.mark.usefixtures("cartpole_rad")


def bindings(name: str) -> list[Binding]:
    statements, error = parse(ginfile.shipped()[name].read_text(), name)
    assert error is None
    return [statement for statement in statements if isinstance(statement, Binding)]


def problems(*arguments: object) -> tuple[ginfile.Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load(*arguments)  # type: ignore[arg-type]
    return caught.value.problems


@pytest.mark.parametrize("name", ginfile.fragments())
def test_a_part_binds_its_own_kind(name: str):
    folder = name.split("/")[0]
    for binding in bindings(name):
        kind = registry.get(binding.name).kind
        if folder == "env":
            assert kind == "environment" or binding.label == "Experiment.env"
        elif folder == "encoder":
            assert kind == "encoder" or binding.label in ("Experiment.encoder", "Experiment.precision")
        else:
            assert kind != "environment"
            assert binding.label != "Experiment.env"
            assert kind != "experiment" or binding.field in registry.get("Experiment").Config.model_fields


def test_parts_include_their_own_kind_alone():
    for name in ginfile.fragments():
        text = ginfile.shipped()[name].read_text()
        included = [line for line in text.splitlines() if line.startswith("include")]
        assert all("/" not in line for line in included), name


def test_there_are_parts_of_each_kind():
    assert {f"env/adroit_{task}" for task in ("pen", "door", "hammer", "relocate")} < set(ENVIRONMENTS)
    parts = {
        "r3m",
        "resnet34",
        "mobilenetv2",
        "shufflenetv2",
        "efficientnet_lite0",
        "timm_dinov2_small",
        "state",
        "vae",
    }
    assert {f"encoder/{part}" for part in parts} <= set(ginfile.fragments("Experiment.encoder"))
    assert {"method/rrl", "method/npg", "method/bc", "method/rad", "method/ferm"} < set(METHODS)
    assert not {"env/adroit_fast", "env/dmc_state", "method/off_policy"} & {*ENVIRONMENTS, *METHODS}
    folders = ("env/", "encoder/", "method/", "eval/")
    assert set(ginfile.fragments()) == {name for name in ginfile.shipped() if name.startswith(folders)}
    assert not (GIN / "base").exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_method_runs_in_every_environment_that_it_fits(method: str):
    """Those of Adroit need demonstrations or a success test: elsewhere they are refused in plain words. DAgger needs a
    teacher, which is a task's."""
    adroit = method in ("method/rrl", "method/npg", "method/bc", "method/ferm", "method/rlpd", "method/rlpd_residual")
    for env in ENVIRONMENTS:
        parts = [env, *([] if method.split("/")[1] in OWN_ENCODER else ["encoder/mobilenetv2"]), method]
        family = env[4:].split("_")[0]
        outside = family in ("gym", "metaworld")
        if "state" in method:
            parts.append("env/gym_state" if outside else f"env/{family}_state")
        if method == "method/dagger":
            assert any("DAgger needs teacher" in p.message for p in problems(parts))
        elif adroit and (family == "dmc" or env == "env/gym_pusher"):
            assert any("success" in p.message or "demonstrations" in p.message for p in problems(parts))
        else:
            flat = flatten(load(parts))
            assert outside or env.endswith(flat["env.task"])
            assert flat["encoder"] == "MobileNetV2" or method.split("/")[1] in OWN_ENCODER


def test_a_combination_is_what_a_file_that_includes_it_says():
    assert load(["env/dmc_finger_spin", "method/rad"]) == load("dmc_finger_spin_rad")
    assert load(["env/adroit_door", "env/adroit_fast", "encoder/mobilenetv2", "method/rrl"]) == load(
        "adroit_door_mobilenetv2"
    )
    assert load(["env/dmc_walker_walk", "env/dmc_state", "method/state_sac"]) == load("dmc_walker_walk_state_sac")
    fast = load(["adroit_door_resnet34", "env/adroit_fast"])
    assert fast == load("adroit_door_resnet34", ["Adroit.look = 'fast'"])
    assert load(["env/adroit_fast", "adroit_door_resnet34"]) == fast  # which says nothing of looks
    assert load(["adroit_door_mobilenetv2", "encoder/resnet34"]) == load(
        "adroit_door_resnet34", ["Adroit.look = 'fast'"]
    )


@pytest.mark.parametrize("other", ["ablations/door_resnet18", "adroit_door_mobilenetv2", "adroit_door_state"])
def test_an_encoder_laid_over_another_is_what_its_name_says(other: str):
    flat = flatten(load([other, "encoder/resnet34"]))
    assert (flat["encoder"], flat["encoder.depth"], flat["precision"]) == ("ResNet", "34", "fp32")


def test_pixels_and_state_undo_each_other():
    assert load(["dmc_walker_walk_rad", "env/dmc_state", "env/dmc_pixels"]) == load("dmc_walker_walk_rad")
    state = load(["dmc_walker_walk_state_sac", "env/dmc_pixels", "env/dmc_state"])
    assert state == load("dmc_walker_walk_state_sac")


def test_own_files_and_overrides_mix_with_shipped_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.gin").write_text("Experiment.seed = 3\nRAD.batch = 64\n")
    config = load(["env/dmc_walker_walk", "method/rad", "mine.gin"], ["RAD.batch = 16"])
    flat = flatten(config)
    assert (flat["seed"], flat["agent.batch"]) == ("3", "16")
    assert flatten(load(["mine.gin", "env/dmc_walker_walk", "method/rad"]))["agent.batch"] == "64"
    (idle,) = problems(["env/dmc_walker_walk", "method/rad", "mine.gin"], ["SAC.gamma = 0.9"])
    assert idle.idle and idle.file == '--set "SAC.gamma = 0.9"'


def test_mistakes_keep_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.gin").write_text("# mine\nRAD.batch = 'x'\nRAD.bach = 3\n")
    Path("torn.gin").write_text("RAD.batch = (\n")
    told = problems(["env/dmc_walker_walk", "method/rad", "mine.gin", "torn.gin"])
    assert [(p.file, p.line) for p in told] == [("mine.gin", 2), ("mine.gin", 3), ("torn.gin", 1)]


def test_what_a_combination_lacks_is_told_with_the_parts_that_bring_it():
    agent, iterations = problems(["env/adroit_pen", "encoder/state"])
    assert str(agent).startswith("env/adroit_pen + encoder/state: Experiment needs agent\n")
    assert iterations.message == "Experiment needs iterations"
    for problem in (agent, iterations):
        assert "from method/ over it: method/bc, method/curl," in problem.hint and "off_policy" not in problem.hint
    (encoder,) = problems(["env/dmc_walker_walk", "method/rrl_sac"])
    assert encoder.message == "Experiment needs encoder"
    assert encoder.hint == "lay a part from encoder/ over it: " + ", ".join(ginfile.fragments("Experiment.encoder"))
    (env,) = problems("method/rad")
    assert (env.file, env.message) == ("method/rad", "Experiment needs env")
    assert "env/dmc_walker_walk" in env.hint and "env/dmc_state" not in env.hint


def test_moved_names_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    moved = json.loads((GIN / "moved.json").read_text())
    for old, new in moved.items():
        assert set(new.split(" and ")) <= set(ginfile.fragments())
        assert old not in ginfile.shipped()
        (problem,) = problems(old)
        assert problem.hint == f"it is now {new}"
        Path("mine.gin").write_text(f"include '{old}.gin'\n")
        (problem,) = problems("mine.gin")
        assert (problem.file, problem.line, problem.hint) == ("mine.gin", 1, f"it is now {new}")
    Path("mine.gin").write_text("include '../base/rrl.gin'\n")
    assert problems("mine.gin")[0].hint == "it is now method/rrl"


@pytest.mark.parametrize("name", [n for n in ginfile.shipped() if n.split("/")[0] not in ginfile.FRAGMENTS])
def test_a_configs_text_is_flattened_without_its_schema(name: str):
    config = load(name, (), ginfile.root_of([name])[0])
    text = ginfile.dumps(config, Path())
    assert flatten_text(text, root=type(config).component.__name__) == flatten(config, Path())


def test_a_text_of_another_version_is_flattened():
    text = (
        "Experiment.encoder = @big/Gone()\nExperiment.twins = (@a/Old(), 3)\nExperiment.note = 'a b'\n\n"
        "big/Gone.inner = @Gone()\nGone.depth = (1,)\na/Old.rate = 1e-05\nbig/Gone.again = @big/Gone()\n"
    )
    assert flatten_text(text) == {
        "encoder": "Gone",
        "encoder.inner": "Gone",
        "encoder.inner.depth": "(1,)",
        "encoder.again": "Gone",
        "twins.0": "Old",
        "twins.0.rate": "1e-05",
        "twins.1": "3",
        "note": "a b",
    }
    assert flatten_text("Experiment.seed = 3\n<<<<<<< here\nExperiment.note = 'x'\n") == {"seed": "3"}


def test_misfits_are_told_together_at_the_lines_of_their_fields(tmp_path: Path):
    """Two parts that do not fit into a run: each problem at the binding that has to be changed, in order of lines."""
    path = tmp_path / "two.gin"
    path.write_text(
        "include 'dmc_cartpole_swingup_curl.gin'\n\nExperiment.encoder = @PixelCNN()\nExperiment.demos = @DemoSet()\n"
    )
    told = problems(path)
    places = [(problem.line, problem.text.split(" = ")[0]) for problem in told]
    assert places == [(3, "Experiment.encoder"), (4, "Experiment.demos")]
    assert problems(path) == told


def test_own_lines_that_nothing_uses_are_told_wherever_the_file_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.gin").write_text("DAPG.trajectories = 5\n")
    parts = ("env/dmc_walker_walk", "method/rad")
    for sources in ((*parts, "mine.gin"), ("mine.gin", *parts)):
        (problem,) = problems(sources)
        assert (problem.file, problem.line) == ("mine.gin", 1)
        assert problem.message == "nothing uses DAPG.trajectories"
    # What a later file decides otherwise is no mistake, nor what only an earlier agent used.
    Path("first.gin").write_text("RAD.batch = 8\nDMControl.look = 'default'\n")
    Path("second.gin").write_text("RAD.batch = 16\n")
    config = load((*parts, "first.gin", "second.gin"))
    assert config.agent.batch == 16 and config.env.look == "default"  # type: ignore[attr-defined]
    Path("run.gin").write_text("include 'adroit_door_mobilenetv2.gin'\nDAPG.lam_0 = 0.5\n")
    assert load(("run.gin", "method/npg")).agent.component.__name__ == "NPG"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("part", "name"), [("timm_dinov2_small", "Timm"), ("resnet34", "ResNet")])
def test_a_part_that_a_probe_does_not_read_is_told(part, name):
    with pytest.raises(ConfigError) as told:
        ginfile.load(["probe/adroit_door", f"encoder/{part}"], root="Probe")
    problem = told.value.problems[0]
    assert problem.message == "Probe doesn't read Experiment.encoder"
    assert problem.hint == f'name it there: --set "Probe.encoders = (..., @{name}())"'


def test_a_probe_takes_another_task():
    config = ginfile.load(["probe/adroit_door", "env/adroit_pen"], root="Probe")
    assert config.env.label() == "pen"  # type: ignore[attr-defined]


def test_settings_of_a_component_that_a_later_file_replaces_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.gin").write_text("Experiment.encoder = @ResNet()\nResNet.depth = 18\n")
    load(["adroit_pen_mobilenetv2", "mine.gin"])
    (problem,) = problems(["mine.gin", "adroit_pen_mobilenetv2"])
    assert problem.message == "nothing uses ResNet.depth"
    assert problem.line == 2
    assert problem.hint.endswith("decides Experiment.encoder, not mine.gin:1: name mine.gin after it")


def test_a_part_that_a_later_one_replaces_is_told():
    (problem,) = problems(("env/dmc_cheetah_run", "encoder/mobilenetv2", "method/rad"))
    assert "this part is not used" in problem.message and "method/rad.gin" in problem.message
    assert problem.hint == "name this part after it, or leave it out"
    assert load(("env/dmc_cheetah_run", "method/rad", "encoder/mobilenetv2"))
    assert load(("env/adroit_door", "env/adroit_door", "encoder/resnet34", "method/rrl"))
