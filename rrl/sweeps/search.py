"""Optuna's part of a sweep: what to try next, from what the runs so far reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rrl.registry import UserError
from rrl.store import results
from rrl.sweeps.jobs import Job
from rrl.sweeps.plan import Builder, Plan
from rrl.sweeps.space import Range
from rrl.sweeps.state import SweepFolder


class OptunaSearch:
    """Proposes combinations with Optuna's TPE sampler (maximising); each is run on all files and seeds.

    Trials are kept in `sweep.json`: a sweep that is called again tells Optuna of them and goes on.
    """

    def __init__(self, plan: Plan, folder: SweepFolder) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._plan, self._folder = optuna, plan, folder
        self._builder = Builder(plan.sweep, plan.axes)
        self._asked: dict[int, tuple[Any, list[Job]]] = {}
        """Trial number -> (Optuna's trial, its jobs) of those that have not been told yet."""
        self._params: list[dict[str, Any]] = list(folder.facts.get("trials", []))
        """Optuna's parameters of every trial ever asked for; an earlier call's come first again."""
        self._known: set[str] = set()
        """Fingerprints of the jobs of all trials so far."""
        self._count = 0
        # The seed changes with what was asked before: the same one would propose the first points again.
        sampler = optuna.samplers.TPESampler(seed=len(self._params))
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        for params in self._params:
            self._study.enqueue_trial(params)

    def more(self, outcomes: Mapping[str, results.Status], room: int) -> list[Job]:
        """Jobs of further trials while there is room; `outcomes`: fingerprint -> how the job ended."""
        for number, (trial, jobs) in list(self._asked.items()):
            if all(job.fingerprint in outcomes for job in jobs):
                self._tell(trial, jobs, any(outcomes[job.fingerprint] == "failed" for job in jobs))
                del self._asked[number]
        new_jobs: list[Job] = []
        while self._count < (self._plan.sweep.trials or 0) and len(new_jobs) < room:
            trial = self._study.ask()
            self._count += 1
            point = {axis.field: self._suggest(trial, n) for n, axis in enumerate(self._plan.axes)}
            files = self._plan.sweep.files
            # All of the trial's runs count, also those that an earlier trial has made.
            jobs = [job for file in files for job in self._builder.every(file, [point])]
            new = {job.fingerprint: job for job in jobs if job.fingerprint not in self._known}
            self._known |= new.keys()
            new_jobs += new.values()
            self._asked[trial.number] = (trial, jobs)
            if self._count > len(self._params):
                self._params.append(dict(trial.params))
            self._folder.record(list(new.values()), trials=self._params)
        return new_jobs

    @property
    def done(self) -> bool:
        """Nothing is left to propose, and everything has been told."""
        return self._count >= (self._plan.sweep.trials or 0) and not self._asked

    def best(self) -> str:
        """The best combination so far, in words; empty if none was finished."""
        try:
            best = self._study.best_trial
        except ValueError:
            return ""
        texts = [axis.override(self._value(n, best.params)) for n, axis in enumerate(self._plan.axes)]
        return f"best {self._plan.sweep.metric} {best.value:.4g}: {', '.join(texts)}"

    def _tell(self, trial: Any, jobs: Sequence[Job], failed: bool) -> None:
        states = self._optuna.trial.TrialState
        if failed:
            self._study.tell(trial, state=states.FAIL)
            return
        metric, runs = self._plan.sweep.metric, self._folder.runs()
        values = []
        for job in jobs:
            result = results.read(runs[job.fingerprint])
            value = result.last(metric)
            if value is None and self._study.get_trials(states=[states.COMPLETE]):
                self._study.tell(trial, state=states.FAIL)  # others have logged it: here it was no finite number
                return
            if value is None:
                known = sorted({name for row in result.rows for name in row.metrics})
                raise UserError(f"{job.name} has logged no {metric} to maximise, only {', '.join(known)}")
            values.append(value)
        self._study.tell(trial, sum(values) / len(values))

    def _suggest(self, trial: Any, index: int) -> Any:
        axis = self._plan.axes[index]
        if not isinstance(axis.values, Range):
            # By position: Optuna's categories are plain values, ours may be tuples and components.
            return axis.values[trial.suggest_categorical(axis.field, list(range(len(axis.values))))]
        low, high, log = axis.values.low, axis.values.high, axis.values.log
        if axis.values.whole:
            return trial.suggest_int(axis.field, int(low), int(high), log=log)
        return trial.suggest_float(axis.field, low, high, log=log)

    def _value(self, index: int, params: Mapping[str, Any]) -> Any:
        axis = self._plan.axes[index]
        raw = params[axis.field]
        return raw if isinstance(axis.values, Range) else axis.values[raw]
