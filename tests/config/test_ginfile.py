"""Gin files: what they mean, what `dumps` writes, and what every kind of mistake is told."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import gin
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from rrl import registry
from rrl.config import ginfile
from rrl.config.ginfile import ConfigError, dumps, flatten, loads
from rrl.config.words import set_scope
from rrl.registry import Component, Config, Mistake, UserError, mistakes


class Encoder(Component):
    kind: ClassVar[str] = "encoder"

    class Config(Component.Config):
        pass


class Agent(Component):
    kind: ClassVar[str] = "agent"

    class Config(Component.Config):
        pass


class Env(Component):
    kind: ClassVar[str] = "environment"

    class Config(Component.Config):
        pass


class Evaluator(Component):
    kind: ClassVar[str] = "evaluator"

    class Config(Component.Config):
        pass


class ResNet(Encoder):
    """A residual network."""

    class Config(Encoder.Config):
        depth: Literal[18, 34, 50] = 34
        """Number of layers (table 1)."""
        weights: str | None = "imagenet"
        """Name or file of the weights; None: untrained."""


class VAE(Encoder):
    class Config(Encoder.Config):
        latent: int = pydantic.Field(default=32, ge=1, le=4096)
        """Size of the code."""
        inner: Encoder.Config | None = None
        """An encoder below this one."""


class State(Encoder):
    class Config(Encoder.Config):
        pass


class Adroit(Env):
    class Config(Env.Config):
        task: Literal["pen", "door", "hammer", "relocate"]
        """Which task."""
        size: tuple[int, ...] = (84, 84)
        """Side lengths in pixels."""


class DAPG(Agent):
    class Config(Agent.Config):
        step: Annotated[float, pydantic.Field(gt=0)] = 0.1
        """Trust region."""
        layers: tuple[int, ...] = (256, 256)
        """Hidden units."""
        damp: float | None = None
        """Damping."""
        fast: bool = False
        """Less exact."""

        @pydantic.field_validator("layers")
        @classmethod
        def _narrow(cls, value: tuple[int, ...]) -> tuple[int, ...]:
            if any(width > 4096 for width in value):
                raise ValueError("a layer this wide does not fit the memory")
            return value


class SuccessRate(Evaluator):
    class Config(Evaluator.Config):
        episodes: int = 100
        """How many."""
        label: str = ""
        """Name."""
        margins: tuple[float, float] = (0.0, 1.0)
        """Interval."""


class Video(Evaluator):
    class Config(Evaluator.Config):
        every: int = 10
        """Period."""


class Experiment(Component):
    """The run."""

    kind: ClassVar[str] = "experiment"

    class Config(Component.Config):
        env: Env.Config
        """Where it learns."""
        encoder: Encoder.Config
        """What it sees with."""
        agent: Agent.Config = pydantic.Field(default_factory=DAPG.Config)
        """How it learns."""
        target: Encoder.Config | None = None
        """A second encoder."""
        evaluators: tuple[Evaluator.Config, ...] = ()
        """What is measured."""
        seed: int = 0
        """Of all random numbers."""

        @pydantic.model_validator(mode="after")
        def _check(self) -> Experiment.Config:
            if isinstance(self.encoder, VAE.Config) and self.seed == 13:
                context = {"field": "encoder", "hint": "add `Experiment.seed = 14`"}
                raise PydanticCustomError("config", "VAE is afraid of seed 13", context)
            if isinstance(self.encoder, State.Config) and self.seed == 13:
                raise PydanticCustomError("config", "State brings bad luck", {"field": "target"})
            if isinstance(self.encoder, VAE.Config) and self.seed == 99:
                old = Mistake("encoder", "VAE is too old for seed 99", "take @ResNet()")
                raise mistakes([old, Mistake("evaluators", "Video films no VAE", "leave it out")])
            if self.seed == 666:
                raise ValueError("this seed is cursed")
            return self


ALL = (ResNet, VAE, State, Adroit, DAPG, SuccessRate, Video, Experiment)


@pytest.fixture(scope="module", autouse=True)
def _only_toys():
    """Let the registry know the toys above and nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_components", {})
        patch.setattr(registry, "_plugins_loaded", True)
        for cls in ALL:
            registry.register(cls)
        yield


ENV = "Experiment.env = @Adroit()\nAdroit.task = 'pen'\n"
BASE = ENV + "Experiment.encoder = @ResNet()\n"  # three lines: mistakes in the table start at line 4
AGENT = BASE + "Experiment.agent = @DAPG()\n"  # four lines

BEGINNINGS = {"": "", "env": ENV, "base": BASE, "agent": AGENT}
MISTAKES = tomllib.loads((Path(__file__).parent / "gin_mistakes.toml").read_text(encoding="utf-8"))["mistake"]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake["name"] for mistake in MISTAKES])
def test_each_mistake_is_told_once_with_place_and_remedy(mistake: dict[str, Any]):
    text, told = BEGINNINGS[mistake.get("below", "")] + mistake.get("text", ""), mistake["told"]
    with pytest.raises(ConfigError) as caught:
        loads(text, "x.gin", mistake.get("overrides", ()))
    problems = caught.value.problems
    assert len(problems) == len(told), str(caught.value)
    lines = text.split("\n")
    for problem, (place, message, hint) in zip(problems, told, strict=True):
        assert (f"{problem.file}:{problem.line}" if problem.line else problem.file) == place
        assert message in problem.message
        assert hint in problem.hint if hint else True
        assert problem.text == (lines[problem.line - 1].strip(" \t\r") if problem.line else problem.file[7:-1])
        assert str(problem) in str(caught.value)


def test_the_table_has_its_size():
    assert len({mistake["name"] for mistake in MISTAKES}) == len(MISTAKES) >= 30


def test_text_of_an_error():
    with pytest.raises(UserError) as caught:
        loads(BASE + "ResNet:\n  depth = '34'", "x.gin", ["Adroit.size = 84"])
    assert str(caught.value) == (
        "x.gin:5: ResNet.depth must be 18, 34 or 50; got '34'\n"
        "    depth = '34'\n"
        "  did you mean 34?\n"
        '--set "Adroit.size = 84": Adroit.size must be a tuple of whole numbers; got 84\n'
        "  did you mean (84,)?"
    )


# What files mean


def base_config(**changes: Any) -> Config:
    fields: dict[str, Any] = {"env": Adroit.Config(task="pen"), "encoder": ResNet.Config(), **changes}
    return Experiment.Config(**fields)


def test_defaults_and_values():
    text = BASE + "ResNet.depth = 18\nExperiment.evaluators = [@Video(), @SuccessRate()]\nVideo.every = 1_000\n"
    wanted = base_config(encoder=ResNet.Config(depth=18), evaluators=(Video.Config(every=1000), SuccessRate.Config()))
    assert loads(text) == wanted
    assert isinstance(wanted.component, type) and loads(text).component is Experiment
    assert loads("ResNet.depth = 18", root="ResNet") == ResNet.Config(depth=18)


def test_a_long_file_of_broken_lines_is_told_at_once():
    """It took minutes when each line was mended in turn."""
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        loads("Experiment.seed = (\n" * 5_000, "x.gin")
    (problem,) = caught.value.problems
    assert (problem.line, problem.message) == (1, "the bracket ( is never closed")
    with pytest.raises(ConfigError) as caught:
        loads(BASE + "Experiment.seed = no way\n" * 5_000, "x.gin")
    (problem,) = caught.value.problems
    assert (problem.line, problem.message) == (4, "no is not a value")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "line",
    [
        "Experiment.seed = " + "9" * 5_000,
        "Experiment.seed = (" + "3, " * 2_000 + "'x')",
        "Experiment.sed = 3  # " + "x" * 5_000,
        "Experiment.seed = " + "x" * 5_000,
        "Experiment.seed = 3 " + "x" * 5_000,
        "Experiment.seed 3 " + "x" * 5_000,
        "ResNet.weights = 'a' " + "'" + "x" * 5_000 + "'" + ", 'b'",
    ],
    ids=lambda line: line[:24],
)
def test_of_a_very_long_line_a_part_is_shown(line: str):
    with pytest.raises(ConfigError) as caught:
        loads(BASE + line, "x.gin")
    (problem,) = caught.value.problems
    assert problem.line == 4
    assert max(map(len, str(problem).split("\n"))) < 400, str(problem)


def test_unknown_root():
    with pytest.raises(ConfigError, match="no component is named Experimnt") as caught:
        loads("", root="Experimnt")
    assert "did you mean Experiment?" in caught.value.problems[0].hint


def test_blocks_comments_and_long_lines():
    text = (
        ENV
        + "Experiment:  # the run\n  encoder = (  # in brackets\n    @ResNet())\n\n  # more\n  seed = 7\n"
        + "ResNet:\n  depth = 50\n"
    )
    assert loads(text) == base_config(encoder=ResNet.Config(depth=50), seed=7)
    assert loads(text.replace("\n", "\r\n")) == loads(text)
    assert loads(ENV + "Experiment.encoder = \\\n  @ResNet()\n") == base_config()


def test_scopes():
    text = (
        BASE
        + "Experiment.target = @big/ResNet()\nbig/ResNet.depth = 50\n"
        + "ResNet.weights = 'w'\nResNet.depth = 18\n"
    )
    small, big = ResNet.Config(depth=18, weights="w"), ResNet.Config(depth=50, weights="w")
    assert loads(text) == base_config(encoder=small, target=big)


def test_a_reference_without_scope_stays_in_its_scope():
    text = BASE + "Experiment.target = @a/b/VAE()\nVAE.inner = @ResNet()\nResNet.depth = 18\na/ResNet.depth = 50\n"
    inner = VAE.Config(inner=ResNet.Config(depth=50))
    assert loads(text) == base_config(encoder=ResNet.Config(depth=18), target=inner)
    other_scope = text.replace("= @ResNet()\nResNet", "= @c/ResNet()\nResNet")
    with pytest.raises(ConfigError, match=r"nothing uses a/ResNet\.depth"):
        loads(other_scope)


def test_macros():
    text = BASE + "width = 64\nlayers = (%width, %width)\nExperiment.agent = @DAPG()\nDAPG.layers = %layers\n"
    assert loads(text) == base_config(agent=DAPG.Config(layers=(64, 64)))
    assert loads(text, overrides=["width = 3"]) == base_config(agent=DAPG.Config(layers=(3, 3)))
    shared = ENV + "eyes = @ResNet()\nExperiment.encoder = %eyes\nExperiment.target = %eyes\nResNet.depth = 18\n"
    assert loads(shared) == base_config(encoder=ResNet.Config(depth=18), target=ResNet.Config(depth=18))
    scoped = BASE + "a/n = 3\nExperiment.seed = %a/n"
    assert loads(scoped) == base_config(seed=3)


def test_an_override_may_idle_what_the_file_configured():
    text = BASE + "ResNet.depth = %d\nd = 18\n"
    assert loads(text, overrides=["Experiment.encoder = @VAE()"]) == base_config(encoder=VAE.Config())
    assert loads(text, overrides=["ResNet.depth = 50"]) == base_config(encoder=ResNet.Config(depth=50))
    overrides = ["Experiment.encoder = @VAE()", "VAE.latent = 4"]
    assert loads(text, overrides=overrides) == base_config(encoder=VAE.Config(latent=4))
    assert loads(ENV + "Experiment.encoder = @Gone()", overrides=["Experiment.encoder = @ResNet()"]) == base_config()


def test_nothing_of_a_file_is_executed(tmp_path: Path):
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    modules = set(sys.modules)
    for line in (
        "import evil",
        "from evil import x",
        "from __gin__ import dynamic_registration",
        "x = @os.getcwd()",
    ):
        with pytest.raises(ConfigError):
            loads(BASE + line, str(tmp_path / "x.gin"))
    assert "evil" not in set(sys.modules) - modules


# Writing


INTS = st.integers(-(2**70), 2**70)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1e-3, -0.0, 0.0, 1e300, 5e-324, 1e16])
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["it's", 'a "b"', "a\nb\r\t\\", "é\u2028☃", "%m", "@X()", "# no", "\x00"]
)
RESNETS = st.builds(ResNet.Config, depth=st.sampled_from([18, 34, 50]), weights=st.none() | TEXTS)
ENCODERS = st.recursive(
    RESNETS | st.builds(State.Config),
    lambda inner: st.builds(VAE.Config, latent=st.integers(1, 4096), inner=st.none() | inner),
    max_leaves=4,
)
EVALUATORS = st.builds(Video.Config, every=INTS) | st.builds(
    SuccessRate.Config, episodes=INTS, label=TEXTS, margins=st.tuples(FLOATS, FLOATS)
)
CONFIGS = st.builds(
    Experiment.Config,
    env=st.builds(
        Adroit.Config,
        task=st.sampled_from(["pen", "door"]),
        size=st.lists(INTS, max_size=3).map(tuple),
    ),
    encoder=ENCODERS,
    agent=st.builds(
        DAPG.Config,
        step=FLOATS.filter(lambda x: x > 0),
        layers=st.lists(st.integers(0, 4096), max_size=3).map(tuple),
        damp=st.none() | FLOATS,
        fast=st.booleans(),
    ),
    target=st.none() | ENCODERS,
    evaluators=st.lists(EVALUATORS, max_size=3).map(tuple),
    seed=INTS.filter(lambda seed: seed not in (13, 666)),
)


def signs(value: Any) -> list[float]:
    """The signs of all floats in a config: `==` cannot tell -0.0 from 0.0."""
    if isinstance(value, Config):
        return [s for name in type(value).model_fields for s in signs(getattr(value, name))]
    if isinstance(value, tuple):
        return [s for item in value for s in signs(item)]
    return [math.copysign(1, value)] if isinstance(value, float) else []


@given(CONFIGS)
@settings(max_examples=150, deadline=None)
def test_load_is_the_inverse_of_dumps(config: Config):
    text = dumps(config)
    again = loads(text)
    assert again == config
    assert signs(again) == signs(config)
    assert dumps(again) == text


@pytest.fixture(scope="module")
def stock():
    """Reads a gin text with stock gin's own runtime; the schemas are registered with it."""
    made = {cls.__name__: gin.external_configurable(cls.Config, name=cls.__name__) for cls in ALL}

    def read(text: str) -> Any:
        gin.clear_config()
        try:
            gin.parse_config(text)
            gin.finalize()
            return made["Experiment"]()
        finally:
            gin.clear_config()

    return read


@given(config=CONFIGS)
@settings(max_examples=50, deadline=None)
def test_stock_gin_reads_dumps_to_an_equal_object(stock, config: Config):
    again = stock(dumps(config))
    assert again == config
    assert signs(again) == signs(config)


def with_scopes(config: Any, data: st.DataObject) -> None:
    """Give components scopes as if files of all sorts had described them."""
    set_scope(config, data.draw(st.sampled_from(["", "a", "a/b", "b", "encoder", "target_inner"])))
    for name in type(config).model_fields:
        value = getattr(config, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Config):
                with_scopes(item, data)


@given(config=CONFIGS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_scopes_components_come_from_dumps_mean_the_same(stock, config: Config, data: st.DataObject):
    canonical = dumps(config)
    with_scopes(config, data)
    text = dumps(config)
    assert stock(text) == loads(text) == config
    assert dumps(config, own_scopes=False) == canonical


@pytest.mark.parametrize(
    "text",
    [
        BASE + "Experiment.target = @big/ResNet()\nResNet.weights = 'w'\nbig/ResNet.depth = 50\n",
        BASE + "Experiment.target = @a/b/VAE()\nVAE.inner = @ResNet()\nResNet.depth = 18\na/ResNet.depth = 50\n",
        BASE + "Experiment.target = @a/VAE()\nVAE.inner = @c/ResNet()\nc/ResNet.depth = 50\na/VAE.latent = 3\n",
        ENV
        + "eyes = @ResNet()\nExperiment.encoder = %eyes\neyes/ResNet.depth = 50\n"
        + "Experiment.target = @ResNet()\n",
        ENV + "Experiment.encoder = @out/VAE()\nout/VAE.inner = %m\nm = @ResNet()\nm/ResNet.depth = 18\n",
        BASE + "n = 3\nm = %n\nExperiment.seed = %m\nResNet:\n  depth = 18\n  weights = 'a' 'b'\n",
        BASE + "Experiment.target = @VAE()\nVAE.inner = @in/VAE()\nin/VAE.inner = None\nVAE.latent = 7\n",
    ],
)
def test_scopes_and_macros_mean_what_stock_gin_means(stock, text: str):
    assert stock(text) == loads(text)
    written = dumps(loads(text))
    assert stock(written) == loads(text)
    own = re.findall(r"\w+(?=/)", text)
    assert set(re.findall(r"\w+(?=/)", written)) <= set(own)


def test_dumps_keeps_the_scopes_of_a_file():
    text = BASE + "Experiment.target = @big/ResNet()\nResNet.depth = 18\nbig/ResNet.depth = 50\n"
    config = loads(text)
    other = loads(text.replace("big/", "huge/"))
    written = dumps(config.model_copy(update={"seed": 3}))
    for line in ("Experiment.encoder = @ResNet()", "Experiment.target = @big/ResNet()"):
        assert line in written.splitlines()
    assert "ResNet.depth = 18" in written.splitlines() and "big/ResNet.depth = 50" in written.splitlines()
    assert config == other and hash(config) == hash(other) and repr(config) == repr(other)
    assert dumps(config, own_scopes=False) == dumps(other, own_scopes=False) != dumps(config) != dumps(other)
    alone = loads(ENV + "Experiment.encoder = @big/ResNet()\nbig/ResNet.depth = 50\n")
    assert "Experiment.encoder = @big/ResNet()\n" in dumps(alone)
    assert dumps(alone.encoder).startswith("ResNet.depth = 50")  # a root stands in no scope


def test_dumps_gives_a_scope_where_gin_would_stay_in_another(stock):
    """What a macro names is read outside the scope of what holds it; dumps has no macros."""
    text = ENV + "Experiment.encoder = @big/ResNet()\nbig/ResNet.depth = 50\nExperiment.target = @big/VAE()\n"
    config = loads(text + "big/VAE.inner = %m\nm = @ResNet()\nResNet.depth = 18\n")
    assert config.target.inner.depth == 18
    assert stock(dumps(config)) == loads(dumps(config)) == config


def test_dumps_is_readable():
    rate = SuccessRate.Config(episodes=5)
    target = VAE.Config(inner=ResNet.Config(depth=50, weights=None))
    text = dumps(base_config(encoder=ResNet.Config(depth=18), target=target, evaluators=(rate, rate)))
    assert (
        text
        == """\
Experiment.env = @Adroit()
Experiment.encoder = @encoder/ResNet()
Experiment.agent = @DAPG()
Experiment.target = @VAE()
Experiment.evaluators = (@SuccessRate(), @SuccessRate())
Experiment.seed = 0

Adroit.task = 'pen'
Adroit.size = (84, 84)

encoder/ResNet.depth = 18
encoder/ResNet.weights = 'imagenet'

DAPG.step = 0.1
DAPG.layers = (256, 256)
DAPG.damp = None
DAPG.fast = False

VAE.latent = 32
VAE.inner = @target_inner/ResNet()

target_inner/ResNet.depth = 50
target_inner/ResNet.weights = None

SuccessRate.episodes = 5
SuccessRate.label = ''
SuccessRate.margins = (0.0, 1.0)
"""
    )


def test_flatten():
    flat = flatten(base_config(encoder=VAE.Config(inner=State.Config()), evaluators=(Video.Config(every=3),)))
    assert " ".join(f"{name}={value}" for name, value in flat.items()) == (
        "env=Adroit env.task=pen env.size=(84, 84) encoder=VAE encoder.latent=32 encoder.inner=State "
        "agent=DAPG agent.step=0.1 agent.layers=(256, 256) agent.damp=None agent.fast=False target=None"
        " evaluators.0=Video evaluators.0.every=3 seed=0"
    )
    assert flatten(SuccessRate.Config(label="a b"))["label"] == "a b"


def test_describe():
    assert ginfile.describe("ResNet") == (
        "ResNet (encoder)\n"
        "\n"
        "  A residual network.\n"
        "\n"
        "  ResNet.depth = 34\n"
        "      takes 18, 34 or 50\n"
        "      Number of layers (table 1).\n"
        "\n"
        "  ResNet.weights = 'imagenet'\n"
        "      takes a string or None\n"
        "      Name or file of the weights; None: untrained."
    )
    experiment = ginfile.describe("Experiment")
    assert "Experiment.env (required)\n      takes an environment (Adroit)\n      Where it learns." in experiment
    assert "Experiment.evaluators = ()\n      takes a tuple of evaluators (SuccessRate or Video)" in experiment
    assert "takes an encoder (ResNet, State or VAE) or None" in experiment
    assert ginfile.describe("ResNet.depth") == (
        "ResNet (encoder)\n\n  ResNet.depth = 34\n      takes 18, 34 or 50\n      Number of layers (table 1)."
    )
    with pytest.raises(UserError, match=r"ResNet has no field dept\n  did you mean depth\?"):
        ginfile.describe("ResNet.dept")
    with pytest.raises(UserError, match=r"no component is named Resnt\n  did you mean ResNet\?"):
        ginfile.describe("Resnt")


# Any text at all


VALID = AGENT + "n = 3\nDAPG:\n  step = 1e-3  # small\n  layers = (\n    %n,\n  )\nResNet.weights = 'a' # %\n"
PIECES = st.sampled_from(
    [*"()[]{}'@%/:=,#\\\n\t .-$x1\x00\u00e9", '"""', "include", "import ", "@VAE()", "  ", "gin.REQUIRED"]
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A good file with pieces cut out and put in."""
    text = VALID
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(st.just("") | PIECES) + text[start + draw(st.integers(0, 12)) :]
    return text


@given(damaged())
@example("(x\nExperiment.seed = 1\n\tDAPG:\n  step = 1.0\n  layers = (n,\n  )\n")
@settings(max_examples=500, deadline=None)
def test_any_text_ends_in_problems_or_a_config(text: str):
    try:
        config = loads(text, "x.gin")
    except ConfigError as error:
        lines = text.split("\n")
        assert error.problems
        for problem in error.problems:
            assert 1 <= problem.line <= len(lines) and problem.text == lines[problem.line - 1].strip()
            assert problem.message and "<reported already>" not in str(problem)
    else:
        assert isinstance(config, Experiment.Config)


def test_importing_is_light_and_finds_the_installed_gin():
    code = (
        "import sys, rrl.config.ginfile, gin; heavy = {'torch', 'mlflow', 'mujoco', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy; assert gin.__file__ and hasattr(gin, 'config_parser')"
    )
    root = Path(registry.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)


def test_a_component_of_a_plugin_that_cannot_be_imported(monkeypatch, capsys):
    broken = metadata.EntryPoint("colour_grid", "no_such_module_anywhere", registry.PLUGIN_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    monkeypatch.setattr(registry, "BUILT_IN", ())
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.setattr(registry, "_plugins_loaded", False)
    monkeypatch.setattr(registry, "left_out", [])
    with pytest.raises(ConfigError) as error:
        loads("Experiment.encoder = @ColourGrid()\n", "x.gin")
    hint = error.value.problems[0].hint
    assert hint.startswith("is it of the plugin colour_grid, which can't be imported (the note above says why)? Else ")
    assert "the plugin colour_grid = no_such_module_anywhere is left out" in capsys.readouterr().err
