"""Linear and nonlinear probes against closed forms; whole episodes are held out."""

import numpy as np
import pytest

from rrl.envs.base import Part
from rrl.probes.quantities import pairs, quantities
from rrl.probes.regression import PENALTIES, Perceptron, Ridge, explained, fitted, folds, held_out
from rrl.registry import UserError


def made_up(episodes=12, length=20, width=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((episodes * length, width)) * rng.uniform(0.5, 3.0, width) + 1.0
    return x, np.repeat(np.arange(episodes), length), rng


@pytest.mark.parametrize("width", [6, 300], ids=["more samples", "more features"])
def test_ridge_is_the_closed_form_at_the_penalty_that_predicts_the_choosing_rows_best(width):
    x, episode, rng = made_up(width=width)
    y = x[:, :2] @ rng.standard_normal((2, 3)) + rng.standard_normal((len(x), 3))
    choosing = episode % 4 == 0

    def closed_form(x, y, penalty):
        z = (x - x.mean(0)) / x.std(0)
        weights = np.linalg.solve(z.T @ z + penalty * len(x) * np.eye(width), z.T @ (y - y.mean(0)))
        return lambda new: (new - x.mean(0)) / x.std(0) @ weights + y.mean(0)

    model = Ridge(x, y, choosing)
    errors = [((closed_form(x[~choosing], y[~choosing], c)(x[choosing]) - y[choosing]) ** 2).sum(0) for c in PENALTIES]
    assert np.array_equal(model.penalties, PENALTIES[np.argmin(errors, axis=0)])
    new, _, _ = made_up(seed=1, width=width)
    for q, penalty in enumerate(model.penalties):
        assert np.allclose(model(new)[:, q], closed_form(x, y, penalty)(new)[:, q], atol=1e-6)


def test_r2_is_the_textbooks():
    rng = np.random.default_rng(0)
    y, predicted = rng.standard_normal((50, 1)), rng.standard_normal((50, 1))
    assert explained(y, predicted) == pytest.approx(1 - ((y - predicted) ** 2).mean() / y.var())
    assert explained(y, y) == 1.0
    assert explained(y, np.full_like(y, y.mean())) == pytest.approx(0.0)


def test_folds_are_of_whole_episodes_and_of_equal_size():
    fold = folds(25, 5, np.random.default_rng(0))
    assert np.bincount(fold).tolist() == [5] * 5
    assert sorted(np.bincount(folds(7, 3, np.random.default_rng(0)))) == [2, 2, 3]


@pytest.mark.parametrize("fit", [Ridge, lambda *data: Perceptron((32,), 0, *data)], ids=["linear", "mlp"])
def test_what_tells_the_episode_apart_explains_nothing_in_another(fit):
    """Features that name the episode, and a target that is its own: any leak between folds would explain all of it."""
    _, episode, rng = made_up(episodes=20)
    x = np.eye(20)[episode] + 0.01 * rng.standard_normal((len(episode), 20))
    y = rng.standard_normal((20, 1))[episode]
    by_row = rng.permutation(np.arange(len(x)) % 5)
    leaking = fitted(x, y, np.arange(len(x)), by_row, fit)
    assert explained(y, held_out(leaking, x, by_row)) > 0.7
    fold = folds(20, 5, rng)
    models = fitted(x, y, episode, fold, fit)
    assert explained(y, held_out(models, x, fold[episode])) < 0.2


def test_the_rows_that_choose_are_none_of_those_that_are_held_out():
    x, episode, _ = made_up()
    fold = folds(12, 4, np.random.default_rng(0))
    seen = []
    fitted(x, x, np.array(episode), fold, lambda a, b, choosing: seen.append((a, choosing)))
    for k, (rows, choosing) in enumerate(seen):
        assert np.array_equal(rows, x[fold[episode] != k])
        assert 0 < choosing.mean() < 0.5
        assert len(choosing) == len(rows)


def test_too_few_rows_are_told():
    x = np.zeros((3, 2))
    with pytest.raises(UserError, match=r"set more `Probe.states`"):
        fitted(x, x, np.array([0, 1, 2]), np.array([0, 0, 1]), Ridge)


def test_the_network_finds_what_no_line_does_and_the_same_again():
    x, episode, _ = made_up(episodes=40, length=40)
    y = np.abs(x[:, :1] - 1.0) + 0.1 * x[:, 1:2]
    fold = folds(40, 2, np.random.default_rng(0))

    def r2(fit):
        return explained(y, held_out(fitted(x, y, episode, fold, fit), x, fold[episode]))

    found = [r2(lambda *data: Perceptron((32, 32), 3, *data)) for _ in range(2)]
    assert found[0] == found[1] > 0.8 > 0.4 > r2(Ridge)


def test_quantities_leave_out_what_never_changes():
    states = np.array([[1.0, 5.0, 0.0, 2.0], [2.0, 5.0, 0.0, 2.0], [4.0, 5.000001, 0.0, 2.0]], np.float32)
    found, constant = quantities((Part("a", 2, robot=True), Part("b", 1), Part("c", 1)), states)
    assert [(q.name, q.columns.tolist(), q.robot) for q in found] == [("a", [0], True)]
    assert constant == ["b", "c"]
    assert [q.name for q in quantities((), states)[0]] == ["state 0"]
    with pytest.raises(ValueError, match="have 3 numbers, the state has 4"):
        quantities((Part("a", 3),), states)


def test_pairs_are_a_row_and_the_one_before():
    rows = np.arange(8.0).reshape(4, 2)
    assert pairs(rows, np.array([1, 3])).tolist() == [[2, 3, 0, 1], [6, 7, 4, 5]]


def test_features_that_hardly_vary_do_not_blow_up():
    x, episode, rng = made_up()
    x[:, 0] = 1.0 + 1e-9 * rng.standard_normal(len(x))
    model = Ridge(x, x[:, 1:2], episode % 4 == 0)
    moved = x.copy()
    moved[:, 0] += 1e-3
    assert np.abs(model(moved) - model(x)).max() < 1e-2
