"""How long a run takes yet: what was timed, for what is to come; and the order of what is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rrl.config import ginfile
from rrl.machine.console import Display
from rrl.registry import build
from rrl.run import loop
from rrl.run.experiment import Experiment
from rrl.run.pace import Left, Pace
from rrl.run.placement import resolve
from rrl.store.tracking import Row

EVALUATORS = "Experiment.evaluators = (@SuccessRate(), @end/SuccessRate(), @BlindControl(), @Video())"
WHEN = ("end/SuccessRate.when = 'end'", "BlindControl.when = 'end'", "Video.when = 'end'")
TIMES = {"time/steps_per_second": 100.0, "time/sampling": 20.0, "time/update": 10.0, "time/simulate": 20.0}


def pace(*overrides: str, source: str = "adroit_door_mobilenetv2") -> Pace:
    config: Any = ginfile.load(source, ["Experiment.iterations = 10", *overrides])
    return Pace(config, build(config.env))


def door(*overrides: str) -> Pace:
    """Episodes of 200 steps; evaluations of 5 after updates, of 50 at the end."""
    few = ("SuccessRate.episodes = 5", "end/SuccessRate.episodes = 50")
    return pace(EVALUATORS, *WHEN, *few, *overrides)


def test_nothing_is_said_before_an_update_was_timed() -> None:
    timed = door()
    timed.evaluations[0] = 3.0
    assert timed.left(0, 0, 0) == Left(0.0, 0.0, ())


def test_evaluations_and_what_was_never_timed_are_told() -> None:
    timed = door()
    timed.updated(TIMES, 2_000)
    # 1,000 steps of evaluation at the training's 0.01 s, after each of 9 + 1 updates; and 10,000 at the end.
    assert timed.left(1, 2_000, 0) == Left(9 * 30.0 + 10 * 10.0 + 100.0, 200.0, ("BlindControl", "Video"))
    timed.saving = 2.0
    timed.evaluations |= {0: 4.0, 2: 50.0, 3: 60.0}  # 0.004 s a step, for those at the end too
    assert timed.left(1, 2_000, 2_000) == Left(9 * 32.0 + 9 * 4.0 + 40.0 + 110.0, 186.0, ())
    assert timed.left(10, 20_000, 18_000) == Left(4.0 + 40.0 + 110.0, 154.0, ())  # the updates are over
    assert timed.left(10, 20_000, 20_000) == Left(150.0, 150.0, ())
    timed.over |= {1, 2}
    assert timed.left(10, 20_000, 20_000) == Left(60.0, 60.0, ())
    timed.over.add(3)
    assert timed.left(10, 20_000, 20_000) == Left(0.0, 0.0, ())


@pytest.mark.parametrize("every", [1, 1_999, 2_000, 2_001, 5_000, 7_000, 19_999, 20_000, 10**9])
def test_as_many_evaluations_as_the_loop_will_make(every: int) -> None:
    timed = door(f"Experiment.eval_every = {every}")
    timed.updated(TIMES, 2_000)
    timed.evaluations |= {0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0}
    due, evaluated = [], 0
    for update in range(1, 11):  # as `Loop.iterate` decides
        if 2_000 * update - evaluated >= every or update == 10:
            due.append(update)
            evaluated = 2_000 * update
    for update in range(1, 11):
        last = max((2_000 * u for u in due if u < update), default=0)
        assert timed.left(update, 2_000 * update, last).evaluating == sum(u >= update for u in due)


def test_recent_updates_count() -> None:
    timed = pace("Experiment.evaluators = ()")
    for seconds in (1_000.0, *(5 * [20.0])):
        timed.updated(TIMES | {"time/sampling": seconds}, 2_000)
    assert timed.left(6, 12_000, 0) == Left(4 * 30.0, 0.0, ())


def test_a_resumed_run_knows_its_rows() -> None:
    timed = door()
    first = Row(0, 1, {"eval/success": 10.0})
    rows = [Row(2_000 * n, 1, TIMES | {"time/iteration": 35.0, "eval/success": 1.0}) for n in (1, 2)]
    timed.read([first, *rows, Row(4_000, 1, {"final/success": 1.0})])
    assert timed.left(2, 4_000, 4_000) == Left(8 * 30.0 + 8 * 5.0 + 50.0, 90.0, ("BlindControl", "Video"))


def test_agents_that_learn_at_every_step_are_timed_as_a_whole() -> None:
    timed = pace("Experiment.evaluators = (@EpisodeReturn(),)", source="dmc_cartpole_swingup_state_sac")
    env, rounds = timed.env, timed.config.log_every
    timed.watched = 0
    timed.updated({"time/steps_per_second": 50.0, "time/simulate": 1.0, "time/act": 3.0}, rounds)
    agent_steps = 10 * env.horizon  # of one evaluation
    left = timed.left(9, 9 * rounds, 9 * rounds)
    assert left.evaluating == pytest.approx(agent_steps * 4.0 * env.action_repeat / rounds)
    assert left.seconds == pytest.approx(rounds / 50.0 + left.evaluating)


def test_steps_that_nothing_is_learnt_from_tell_nothing() -> None:
    """SAC's first random ones, which are far quicker than those with an update each."""
    timed = pace("Experiment.evaluators = ()", "SAC.init_steps = 1_500", source="gym_pusher_rrl_sac_mobilenetv2")
    for n in (1, 2):
        timed.updated({"time/steps_per_second": 100.0}, 1_000)
        assert timed.left(n, n * 1_000, 0) == Left(0.0, 0.0, ())
    timed.updated({"time/steps_per_second": 10.0}, 1_000)
    assert timed.left(3, 3_000, 0) == Left(7 * 100.0, 0.0, ())


class Recorded(Display):
    """Keeps what happens in order: lines, and phases with their steps as they were counted."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.events: list[tuple[str, int, int]] = []

    def line(self, text: str) -> None:
        self.events.append((text, -1, -1))

    def phase(self, name: str, steps: int) -> None:
        self.events.append((name, steps, 0))

    def advance(self, steps: int) -> None:
        place = max(n for n, event in enumerate(self.events) if event[1] >= 0)
        name, total, done = self.events[place]
        self.events[place] = name, total, done + steps


class Silent:
    """A tracker that shows nobody anything."""

    run_id = "0"

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


SMALL = (
    "Experiment.num_envs = 2",
    "Experiment.iterations = 2",
    "Experiment.workers = 0",
    "Experiment.threads = 1",
    "Experiment.evaluators = (@SuccessRate(), @BlindControl())",
    "SuccessRate.episodes = 2",
    "BlindControl.when = 'end'",
    "BlindControl.clones = 2",
    "BlindControl.episodes = 2",
    "Adroit.state = 'joints'",
    "State.blind = True",
    "Adroit.horizon = 10",
    "DAPG.trajectories = 2",
    "DAPG.value_batch = 8",
    "DAPG.policy_hidden = (8,)",
    "DAPG.bc_epochs = 1",
    "DemoSet.episodes = 1",
)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, int]]:
    display = Recorded()
    config = resolve(ginfile.load("adroit_door_state", SMALL))  # type: ignore[arg-type]
    folder: Path = tmp_path_factory.mktemp("run")
    with display:
        assert loop.train(Experiment(config), folder, Silent(), display) == "finished"
    return display.events


def test_an_update_is_told_before_what_its_evaluation_finds(events: list[tuple[str, int, int]]) -> None:
    said = [text for text, steps, _ in events if steps < 0 and text.startswith(("update", "mean", "blind"))]
    assert [text.split()[0] for text in said] == ["mean", "update", "mean", "update", "mean", "blind"]
    assert "ETA" in said[1] or "BlindControl not timed" not in said[1]
    assert not any("updates left" in text for text in said)


def test_an_update_is_told_in_lines_of_120_columns(events: list[tuple[str, int, int]]) -> None:
    updates = [text for text, steps, _ in events if steps < 0 and text.startswith("update")]
    assert len(updates) == 2
    for text in updates:
        first, second, *_ = text.split("\n")
        assert max(map(len, text.split("\n"))) <= 120
        assert re.search(r"train/success \d+\.0 % \(95 %: \d+\.\d to \d+\.\d\)", first)
        assert re.match(r"  \d+ steps/s \(learn \d+, encode 0, act \d+, ", second)


def test_success_is_shown_as_episodes_end(tmp_path: Path) -> None:
    shown: list[str] = []

    class Watched(Recorded):
        def scored(self, text: str) -> None:
            shown.append(text)

    config = resolve(ginfile.load("adroit_door_state", [*SMALL[:4], *SMALL[11:], "Experiment.evaluators = ()"]))  # type: ignore[arg-type]
    with Watched() as display:
        loop.train(Experiment(config), tmp_path, Silent(), display)
    counts = [re.fullmatch(r"train/success [\d.]+ % \(\d of (\d); 95 %: [\d.]+ to [\d.]+\)", text) for text in shown]
    assert [match and match[1] for match in counts] == ["1", "2", "1", "2"]  # of each of the two updates


def test_every_count_has_its_total(events: list[tuple[str, int, int]]) -> None:
    counted = [(name, total, done) for name, total, done in events if done > 0]
    assert counted
    for name, total, done in counted:
        assert 0 < done <= total, name
    whole = {name: (total, done) for name, total, done in counted}
    assert whole["evaluating: SuccessRate"] == (20, 20)
    assert whole["evaluating: BlindControl"] == (40, 40)  # of both clones, after they were cloned
    assert whole["evaluating: cloning"] == (2, 2)
    assert {"warm start: cloning", "replaying 1 demonstrations", "update 2/2: sampling"} <= whole.keys()
