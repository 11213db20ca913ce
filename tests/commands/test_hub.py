"""`rrl export --hub`: a folder that says what it holds, and from which the policy acts."""

import numpy as np
import pytest
import yaml
from helpers.plugins import install
from helpers.report_runs import make_run, make_scored
from helpers.small_policies import saved
from safetensors.torch import save_file
from typer.testing import CliRunner

import rrl
from rrl import cli, registry
from rrl.commands import hub
from rrl.commands import policies as evaluation
from rrl.config import ginfile
from rrl.registry import UserError
from rrl.run import policies
from rrl.store import checkpoint, results

SMALL = ("Adroit.horizon = 6", "DAPG.policy_hidden = (8,)")
UPDATES = 6


def finished(folder, *overrides, source="adroit_door_state", state_dim=39):
    """The folder of a run in `folder`, with an untrained policy as its last one."""
    run = make_run(folder / "runs", "aabb", source, [*SMALL, *overrides], updates=UPDATES)
    saved(run / "policy.safetensors", ginfile.dumps(ginfile.load(run / "config.gin")), state_dim, 28)
    tensors, values = checkpoint.load_file(run / "policy.safetensors")
    checkpoint.save_file(run / "policy.safetensors", tensors, {**values, "iteration": UPDATES})
    return run


def acts(policy):
    env = policy.make_env()
    obs, _ = env.reset(seed=0)
    action = policy.act(obs)
    env.close()
    return action


def test_the_folder_has_all_that_a_page_shows(tmp_path, monkeypatch):
    run, out = finished(tmp_path), tmp_path / "door"
    (run / "learning_curve.png").write_bytes(b"a curve")
    (run / "videos").mkdir()
    for update, film in ((0, b"first"), (UPDATES, b"last")):
        (run / "videos" / f"{update:06d}.mp4").write_bytes(film)
    monkeypatch.chdir(tmp_path)
    out.mkdir()  # an empty folder will do
    done = CliRunner().invoke(cli.app, ["export", "aabb", "--hub", "door"], catch_exceptions=False)
    assert done.output.splitlines()[-1] == "  hf upload USER/door door"
    assert {path.name for path in out.iterdir()} == {
        *("README.md", "config.gin", "curve.png", "policy.safetensors", "replay.mp4")
    }
    assert (out / "replay.mp4").read_bytes() == b"last" and (out / "curve.png").read_bytes() == b"a curve"

    _, head, body = (out / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["tags"] == ["reinforcement-learning", "robotics", "rrl", "adroit_door"]
    assert "license" not in front and "# license:" in head
    final = results.read(run).rows[-1].metrics
    first = front["model-index"][0]["results"][0]["metrics"][0]
    assert first == {
        "type": "success",
        "value": round(final["final/success"], 2),
        "name": "success (%), mean action, 100 episodes",
    }
    low, high = final["final/success_low"], final["final/success_high"]
    row = f"| mean action | success | {final['final/success']:.1f} % | {low:.1f} to {high:.1f} | 100 |"
    assert row in body and body.count("| sampled action |") == 2
    for text in (
        *("Of the run's final evaluation", "for 6,000 environment steps (6 updates)", "protocol paper", "no pictures"),
        *("a state vector of 39 numbers\n", "an episode: 6 steps; a success: `success` in more than 25 of them"),
        *("rrl eval door", "(curve.png)", "(replay.mp4)"),
    ):
        assert text in body, text
    assert "Beside rrl it needs" not in body


def test_the_policy_in_it_is_the_runs(tmp_path):
    run, out = finished(tmp_path), tmp_path / "door"
    hub.export(str(run), out, print)
    np.testing.assert_array_equal(acts(rrl.load_policy(out)), acts(rrl.load_policy(run / "policy.safetensors")))
    assert evaluation.locate(str(out), best=False) == out / "policy.safetensors"
    with pytest.raises(UserError, match=r"--best chooses between the policies of a run"):
        evaluation.locate(str(out), best=True)
    assert {path.name for path in out.iterdir()} == {"README.md", "config.gin", "policy.safetensors"}
    assert "curve.png" not in (out / "README.md").read_text()


def test_what_is_there_is_left_alone(tmp_path, monkeypatch):
    run, out = finished(tmp_path), tmp_path / "door"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"door exists already"):
        hub.export(str(run), out, print)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match=r"there is no file .*/door/policy\.safetensors"):
        rrl.load_policy(out)
    for more in (["--best"], ["--half"], ["--int8"], ["--policy", "p.safetensors"]):
        done = CliRunner().invoke(cli.app, ["export", str(run), "--hub", str(tmp_path / "new"), *more])
        assert done.exit_code == 2 and not (tmp_path / "new").exists()


def test_files_are_named_without_this_machines_folders(tmp_path, monkeypatch):
    """A network's weights that are too large to be in the policy's file, of a plugin: both are said to be needed."""
    install(monkeypatch, tmp_path / "site", "plugins.encoder96")
    encoder_class = registry.get("Attention96")
    weights = tmp_path / "private" / "attention.safetensors"
    weights.parent.mkdir()
    save_file(encoder_class(encoder_class.Config(seed=3), cameras=1).network.state_dict(), weights)
    settings = ("Experiment.encoder = @Attention96()", f"Attention96.weights = '{weights}'")
    run = finished(tmp_path, *settings, source="adroit_door_mobilenetv2", state_dim=24)
    expected = acts(rrl.load_policy(run / "policy.safetensors"))
    monkeypatch.setattr(policies, "CARRIED", 0)
    out, said = tmp_path / "door", []
    hub.export(str(run), out, said.append)
    assert f"it needs {weights}" in said[0]
    body = (out / "README.md").read_text()
    assert "Beside rrl it needs: the module plugins, attention.safetensors." in body
    assert "- pictures: 96 x 96 pixels, top" in body and "- Attention96, frozen: weights `file:" in body
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in out.iterdir())
    weights.rename(out / weights.name)
    np.testing.assert_array_equal(acts(rrl.load_policy(out)), expected)


def test_a_return_has_an_interval_too(tmp_path):
    """And without a final evaluation the last one counts, if it is of this policy."""
    scores = {0: 10.0, 100_000: 500.0}
    run = results.read(make_scored(tmp_path, "cc", "dmc_finger_spin_state_sac", scores))
    which, (number,) = hub.evaluation(run, updates=2)
    assert (which, number.action, number.value, number.episodes) == (
        "the run's last evaluation",
        "mean action",
        500,
        10,
    )
    half = 1.96 * 5 / 10**0.5
    assert number.interval == pytest.approx((500 - half, 500 + half))
    assert hub.evaluation(run, updates=1)[1] == []
