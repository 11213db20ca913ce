"""A store that is away for a while gets everything, in order, and nobody waits for it."""

import time
from contextlib import nullcontext

import pytest
from filelock import FileLock
from helpers.stores import prepared

from rrl.store import delivery, tracking
from rrl.store.delivery import Deliveries
from rrl.store.tracking import MLflowTracker, Row


class Away(Exception):
    """The store can't be reached."""


class Refused(Exception):
    """The store won't have it."""


class Store:
    """Takes words, unless it is away."""

    def __init__(self):
        self.has, self.away, self.tries = [], False, 0

    def take(self, word):
        def deliver():
            self.tries += 1
            if self.away:
                raise Away("nobody answers")
            if word == "bad":
                raise Refused("no such word")
            self.has.append(word)

        return deliver

    def deliveries(self):
        return Deliveries("the store", nullcontext, refused=lambda error: isinstance(error, Refused))


def test_what_an_outage_held_up_arrives_in_order_when_it_is_over(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    store = Store()
    out = store.deliveries()
    out.add("word", store.take("a"))
    store.away = True
    with pytest.warns(
        UserWarning, match=r"the store can't be reached \(nobody answers\); the training goes on"
    ) as told:
        for word in "bcd":
            out.add("word", store.take(word))
    assert len(told) == 1 and store.tries == 2  # not one try for each
    now[0] += delivery.FIRST_PAUSE
    out.add("word", store.take("e"))
    assert store.tries == 3
    now[0] += delivery.FIRST_PAUSE
    out.add("word", store.take("f"))  # the pause has doubled
    assert store.tries == 3
    store.away = False
    now[0] += delivery.FIRST_PAUSE
    out.add("word", store.take("g"))
    assert store.has == list("abcdefg") and not out.waiting


def test_what_a_store_refuses_holds_up_nothing():
    store = Store()
    out = store.deliveries()
    with pytest.warns(UserWarning, match=r"the store does not take this run's word \(no such word\)"):
        out.add("word", store.take("bad"))
    out.add("word", store.take("good"))
    assert store.has == ["good"] and not out.waiting


def test_rows_and_files_that_a_held_store_missed_are_there_at_the_end(tmp_path, monkeypatch):
    monkeypatch.chdir(prepared(tmp_path))
    monkeypatch.setattr(tracking, "TURN", 0.05)
    tracker = MLflowTracker.start("x")
    rows = [Row(10 * n, 1_700_000_000_000 + n, {"train/return": float(n)}) for n in range(4)]
    (tmp_path / "file.txt").write_text("kept")
    tracker.metrics(rows[:1])
    with (
        pytest.warns(UserWarning, match="MLflow .* can't be reached .*mlflow.db.lock"),
        FileLock(tmp_path / "mlflow.db.lock"),
    ):
        tracker.metrics(rows[:2])
        tracker.tags({"protocol": "paper"})
        tracker.artifact(tmp_path / "file.txt")
        tracker.metrics(rows[:3])
        with pytest.warns(UserWarning, match=r"has not got this run's metrics, tags, file\.txt$"):
            tracker.finish()
    tracker.metrics(rows)
    tracker.end("FINISHED")
    run = tracker.client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.data.tags["protocol"] == "paper"
    points = tracker.client.get_metric_history(tracker.run_id, "train/return")
    assert [(point.step, point.value) for point in points] == [(row.step, row.metrics["train/return"]) for row in rows]
    assert [file.path for file in tracker.client.list_artifacts(tracker.run_id)] == ["file.txt"]


def test_a_file_that_is_gone_is_told_and_holds_up_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(prepared(tmp_path))
    tracker = MLflowTracker.start("x")
    with pytest.warns(UserWarning, match=r"does not take this run's gone\.txt"):
        tracker.artifact(tmp_path / "gone.txt")
    tracker.end("FINISHED")
    assert tracker.client.get_run(tracker.run_id).info.status == "FINISHED"
