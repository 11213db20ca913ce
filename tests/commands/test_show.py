"""`rrl show` and `rrl schema`: settings with the lines that decided them, and what they may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rrl import cli
from rrl.config import ginfile, schema

BASE = "rate = 3e-4\nDAPG.gamma = 0.99\nDAPG.trajectories = 7\nDAPG.value_lr = %rate\nSuccessRate.episodes = 11\n"
MINE = """\
include 'base.gin'
include 'adroit_door_state.gin'
rate = 5e-4
DAPG.gamma = 0.9
Experiment.evaluators = (@SuccessRate(), @final/SuccessRate())
final/SuccessRate.episodes = 12
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("base.gin").write_text(BASE)
    Path("mine.gin").write_text(MINE)
    return tmp_path


def said(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def recorded(*arguments: str) -> dict[str, Any]:
    told = json.loads(said("show", *arguments, "--json"))
    return {setting["name"]: setting for setting in told["settings"]}


def lines(binding: dict[str, Any]) -> str:
    return f"{Path(binding['file']).name}:{binding['line']}" if binding["file"] else f"--set {binding['text']}"


SOURCES = (
    ("mine.gin",),
    ("quickstart",),
    ("env/dmc_walker_walk", "method/rad"),
    ("sweeps/fig4_door",),
    ("probe/adroit_door",),
    ("pretrain/vae_adroit_door",),
    ("adroit_relocate_ferm",),
)


@pytest.mark.parametrize("sources", SOURCES, ids=" ".join)
def test_what_is_shown_is_a_gin_file(sources: tuple[str, ...]) -> None:
    """The same one, with the defaults and without."""
    root = ginfile.root_of(sources)[0]
    config = ginfile.load(sources, root=root)
    for more in ((), ("--all",)):
        assert ginfile.loads(said("show", *sources, *more), root=root) == config


def test_what_check_prints_is_what_all_shows() -> None:
    shown = [line.partition("  # ")[0].rstrip() for line in said("show", "mine.gin", "--all").splitlines()]
    checked = [line.removeprefix("# at its default: ") for line in said("check", "mine.gin").splitlines()]
    assert [line for line in shown if line and not line.lstrip().startswith("#")] == [line for line in checked if line]


def test_each_value_has_its_line_and_the_includes_that_led_there() -> None:
    told = recorded("mine.gin", "--set", "DAPG.gamma = 0.8")
    gamma = told["DAPG.gamma"]
    assert (gamma["gin"], gamma["value"], gamma["default"]) == ("0.8", 0.8, False)
    assert [lines(b) for chain in gamma["from"] for b in chain] == ["--set DAPG.gamma = 0.8"]
    assert [(b["gin"], lines(b)) for b in gamma["overridden"]] == [("0.9", "mine.gin:4"), ("0.99", "base.gin:2")]
    (((agent,),), (env,)) = told["Experiment.agent"]["from"], told["Experiment.env"]["from"]
    assert [lines(b) for b in agent["via"]] == ["adroit_door_state.gin:8", "mine.gin:2"]
    assert lines(env[0]) == "adroit_door.gin:3"
    assert "DAPG.bc_epochs" not in told


def test_a_macro_is_part_of_the_way() -> None:
    """And what it was before counts as overridden."""
    rate = recorded("mine.gin")["DAPG.value_lr"]
    assert rate["value"] == 5e-4
    assert [lines(b) for b in rate["from"][0]] == ["base.gin:4", "mine.gin:3"]
    assert [(b["name"], b["gin"], lines(b)) for b in rate["overridden"]] == [("rate", "0.0003", "base.gin:1")]
    text = said("show", "mine.gin")
    assert "base.gin:4 via mine.gin:1; %rate: mine.gin:3" in text
    assert "    # was rate = 0.0003  base.gin:1 via mine.gin:1" in text


def test_a_wider_scope_is_overridden_by_a_narrower_one() -> None:
    told = recorded("mine.gin")
    plain, final = told["SuccessRate.episodes"], told["final/SuccessRate.episodes"]
    assert (plain["value"], lines(plain["from"][0][0]), plain["overridden"]) == (11, "base.gin:5", [])
    assert final["value"] == 12 and lines(final["from"][0][0]) == "mine.gin:6"
    assert [(b["name"], b["gin"], lines(b)) for b in final["overridden"]] == [
        ("final/SuccessRate.episodes", "100", "rrl.gin:12"),
        ("SuccessRate.episodes", "11", "base.gin:5"),
    ]


def test_a_file_that_is_included_twice_overrides_nothing() -> None:
    Path("twice.gin").write_text("include 'mine.gin'\ninclude 'mine.gin'\n")
    once, twice = recorded("mine.gin"), recorded("twice.gin")
    assert once.keys() == twice.keys()
    for name, setting in once.items():
        assert [lines(b) for b in twice[name]["overridden"]] == [lines(b) for b in setting["overridden"]]


def test_defaults_are_counted_and_shown_when_asked_for() -> None:
    few, all_ = said("show", "mine.gin"), said("show", "mine.gin", "--all")
    count = sum(line.endswith("# default") for line in all_.splitlines())
    assert f"# {count} settings at the default of the schema: --all shows them" in few
    assert "# default" not in few.replace("# default of", "")
    told = json.loads(said("show", "mine.gin", "--json"))
    assert told["defaults_left_out"] == count and told["root"] == "Experiment"


def test_mistakes_are_those_of_check() -> None:
    outputs = []
    for command in ("show", "check"):
        done = CliRunner().invoke(cli.app, [command, "mine.gin", "--set", "DAPG.gama = 1"])
        assert done.exit_code == 2
        outputs.append(done.output.replace("rrl show", "rrl check"))
    assert outputs[0] == outputs[1] and "gamma" in outputs[0]


def test_a_sweep_is_shown_alone() -> None:
    done = CliRunner().invoke(cli.app, ["show", "sweeps/fig4_door", "quickstart"])
    assert done.exit_code == 2 and "is a sweep of its own" in done.output


# ---- rrl schema


@pytest.mark.parametrize("sources", SOURCES, ids=" ".join)
def test_what_is_shown_fits_the_schema(sources: tuple[str, ...]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    whole = json.loads(said("schema"))
    jsonschema.Draft202012Validator.check_schema(whole)
    document: dict[str, dict[str, Any]] = {}
    for name, setting in recorded(*sources, "--all").items():
        component, _, field = name.rpartition(".")
        document.setdefault(component, {})[field] = setting["value"]
    validator = jsonschema.Draft202012Validator(whole)
    validator.validate(document)
    component, fields = next(iter(document.items()))
    for broken in (
        {**document, component: {**fields, "no_such_field": 1}},
        {**document, component: {**fields, next(iter(fields)): {"a": 1}}},
        {**document, "NoSuchComponent": {}},
    ):
        assert not validator.is_valid(broken)


def test_a_schema_tells_types_limits_defaults_and_meanings() -> None:
    told = json.loads(said("schema", "DAPG"))
    assert told["title"] == "DAPG" and told["description"]
    gamma = told["properties"]["gamma"]
    field = ginfile.load("adroit_door_state").agent.__class__.model_fields["gamma"]  # type: ignore[attr-defined]
    assert gamma["default"] == field.default and gamma["type"] == "number"
    assert gamma["description"] == field.description
    assert told["properties"]["policy_hidden"]["default"] == [256, 256]
    run = schema.of_component("Experiment")
    assert {"env", "encoder", "agent", "iterations"} <= set(run["required"])
    options = run["properties"]["demos"]["anyOf"]
    assert {"type": "null"} in options and run["properties"]["demos"]["default"] is None
    assert schema.of_all()["$defs"]["DAPG"] == {k: v for k, v in told.items() if k != "$schema"}


def test_what_was_meant_is_proposed() -> None:
    done = CliRunner().invoke(cli.app, ["show", "DAPG"])
    assert done.exit_code == 2 and "try: rrl describe DAPG" in done.output
    done = CliRunner().invoke(cli.app, ["schema", "DAGP"])
    assert done.exit_code == 2 and "try: rrl schema DAPG" in done.output
