"""Demonstrations of gymnasium's own environments, recorded by others without rrl."""

import json
import shutil
import sys

import numpy as np
import pytest
from helpers.stores import prepared
from typer.testing import CliRunner

from rrl import cli
from rrl.commands import demo_imports
from rrl.commands import demos as commands
from rrl.demos import importers, sets
from rrl.envs import gym_packages
from rrl.envs.base import seed_of
from rrl.registry import UserError, build
from rrl.run import process
from rrl.store import results

h5py = pytest.importorskip("h5py")
pytest.importorskip("minari")
from helpers import minari_sets  # noqa: E402

STEPS = 20
SEEDS = (2**63 + 5, 7)
TOY = "helpers.gym_tasks:helpers/Toy-v0"
PUSHER = "mujoco/pusher/{}-v0"


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory):
    """Where this file's Minari datasets are."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("minari")
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        yield folder


@pytest.fixture(scope="module")
def pusher(store):
    """Two episodes of Pusher-v5, and its states: the dataset `expert` with seeds, as Minari's collector keeps them."""
    env = minari_sets.made("Pusher-v5")
    recorded = [minari_sets.episode(env, seed, STEPS) for seed in SEEDS]
    episodes, states = zip(*recorded, strict=True)
    minari_sets.write(PUSHER.format("expert"), env, episodes)
    return env, episodes, states


def taken(source, out, **settings):
    """The set that comes of an import, and what was said."""
    lines = []
    settings = {"task": None, "kind": None, "protocol": None, "origin": "human"} | settings
    demo_imports.take_over(str(source), out, lines.append, **settings)
    return sets.load(out), "\n".join(lines)


def changed(store, **spec):
    """A copy of the dataset `expert` that says something else of its environment."""
    name = f"n{len(list(store.glob('changed/*')))}-v0"
    source, folder = store / PUSHER.format("expert"), store / "changed" / name
    shutil.copytree(source, folder)
    about = json.loads((folder / "data" / "metadata.json").read_text())
    about["env_spec"] = json.dumps(json.loads(about["env_spec"]) | spec)
    (folder / "data" / "metadata.json").write_text(json.dumps(about))
    return f"changed/{name}"


@pytest.fixture(scope="module")
def imported(pusher, tmp_path_factory):
    """The set of `expert`."""
    out = tmp_path_factory.mktemp("sets") / "pusher.npz"
    taken(PUSHER.format("expert"), out)
    return out


def test_a_minari_dataset_says_where_it_was_recorded_and_is_replayed_bit_for_bit(pusher, tmp_path):
    _, episodes, states = pusher
    demos, told = taken(PUSHER.format("expert"), tmp_path / "a")
    assert demos.facts["env"] == "gymnasium_Pusher-v5"
    assert [seed_of(words) for words in demos.initial["seed"]] == list(SEEDS)  # all 64 bits of them
    actions = np.concatenate([each["actions"] for each in episodes])
    assert np.abs(actions).max() > 1.2  # Pusher's own range is [-2, 2]
    np.testing.assert_array_equal(demos.actions, actions / 2)
    np.testing.assert_array_equal(demos.qpos, np.concatenate([qpos for qpos, _ in states]).astype(np.float32))
    returns = [each["rewards"].sum() for each in episodes]
    np.testing.assert_allclose(demos.facts["returns"], returns, rtol=1e-6)  # our float32 action counts in the reward
    assert "recorded in Pusher-v5; the task here is gymnasium_Pusher-v5" in told
    assert (
        "episodes begin with their recorded seeds; first observations differ from the recorded ones by at most 0\n"
        in told
    )
    assert "lie outside" not in told and "stretched" not in told


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "observed as recorded (no seed was recorded)"),
        ("wrong", "observed as recorded (the recorded seeds begin elsewhere here: another version?)"),
        (
            "infos",
            "at their recorded positions and velocities; first observations differ from the recorded ones by at most 0",
        ),
    ],
)
def test_without_a_seed_that_holds_a_start_is_found_and_told(pusher, tmp_path, kind, words):
    env, episodes, states = pusher
    seeds = {"wrong": 1}.get(kind)
    given = [{**each, "seed": seeds} for each in episodes]
    infos = {name: [part[k] for part in states] for k, name in enumerate(("qpos", "qvel"))} if kind == "infos" else {}
    minari_sets.write(PUSHER.format(kind), env, given, **infos)
    demos, told = taken(PUSHER.format(kind), tmp_path / "a")
    assert words in told
    for i, (qpos, qvel) in enumerate(states):
        np.testing.assert_allclose(demos.initial["qpos"][i], qpos[0], atol=0 if kind == "infos" else 1e-9)
        np.testing.assert_allclose(demos.initial["qvel"][i], qvel[0], atol=0 if kind == "infos" else 1e-9)
    assert commands.verify(str(tmp_path / "a"), print)
    if kind == "infos":
        assert "positions differ from the recorded ones by at most 0; " in told


@pytest.mark.parametrize("name", ["Reacher-v5", "Ant-v5"])
def test_a_start_is_found_through_angles_and_contact_forces(tmp_path, name):
    env = minari_sets.made(name)
    episode, (qpos, _) = minari_sets.episode(env, 3, 10, told=False)
    minari_sets.write(f"mujoco/{name.lower()}", env, [episode])
    demos, told = taken(f"mujoco/{name.lower()}", tmp_path / "a")
    assert "observed as recorded (no seed was recorded)" in told
    unseen = 2 if name == "Ant-v5" else 0  # where on the plane it stands
    np.testing.assert_allclose(demos.states(0)[0][:, unseen:], qpos[:, unseen:], atol=1e-6)


def test_what_begins_elsewhere_is_refused_with_numbers(pusher, tmp_path):
    env, episodes, _ = pusher
    tip = np.where(np.arange(23) == 14, 0.3, 0)  # no arm has its fingertip there
    minari_sets.write(
        PUSHER.format("elsewhere"), env, [{**each, "observations": each["observations"] + tip} for each in episodes]
    )
    told = r"episode 0: Pusher-v5 does not begin as recorded: .*its first observation is up to 0\.\d+ from the recorded"
    with pytest.raises(UserError, match=told):
        taken(PUSHER.format("elsewhere"), tmp_path / "a")
    minari_sets.write(
        PUSHER.format("short"), env, [{**each, "observations": each["observations"][:, :9]} for each in episodes]
    )
    with pytest.raises(UserError, match="its observations have 9 numbers, those of Pusher-v5 23"):
        taken(PUSHER.format("short"), tmp_path / "a")
    assert not (tmp_path / "a.npz").exists()


def test_a_drift_from_the_recording_is_told(pusher, tmp_path):
    env, episodes, _ = pusher
    weaker = [{**each, "actions": each["actions"] * np.float32(0.5)} for each in episodes]
    minari_sets.write(PUSHER.format("weaker"), env, weaker)
    _, told = taken(PUSHER.format("weaker"), tmp_path / "a")
    assert "first observations differ from the recorded ones by at most 0\n" in told
    (line,) = [line for line in told.splitlines() if line.startswith("observations differ")]
    assert float(line.partition("at most ")[2].partition(")")[0]) > 0.05


def test_settings_and_limit_of_the_recorded_environment_are_kept(pusher, store, tmp_path):
    settings = {"reward_near_weight": 0.7, "render_mode": "rgb_array"}
    source = changed(store, kwargs=settings, max_episode_steps=10)
    demos, told = taken(source, tmp_path / "a")
    env = build(sets.environment(demos.facts))
    assert env.config.kwargs == (("reward_near_weight", 0.7),) and env.horizon == 10
    assert "2 of them longer than the horizon of 10" in told
    plain, _ = taken(PUSHER.format("expert"), tmp_path / "b")
    assert np.mean(demos.facts["returns"]) < np.mean(plain.facts["returns"]) - 0.5


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            {"id": "Evil-v0", "entry_point": "antigravity:fly"},
            "knows no environment 'Evil-v0' here; it comes from the pac",
        ),
        ({"id": "antigravity:Evil-v0"}, "knows no environment 'antigravity:Evil-v0' here"),
        ({"id": "Pusher-v55"}, "did you mean 'Pusher-v5'"),
        ({"id": "Pusher-v5", "kwargs": {"default_camera_config": {"distance": 1}}}, "can't be had as it was recorded"),
    ],
)
def test_a_dataset_whose_environment_is_not_here(pusher, store, tmp_path, spec, told):
    """And which module stands in a file is no reason to import it."""
    source = changed(store, **spec)
    with pytest.raises(UserError, match=told):
        taken(source, tmp_path / "a")
    assert "antigravity" not in sys.modules
    taken(source, tmp_path / "a", task="Pusher-v5")  # a user may say so


def test_an_environment_of_an_installed_package_is_found(pusher, store):
    door = {"id": "AdroitHandDoor-v1", "entry_point": "gymnasium_robotics.envs.adroit_hand:AdroitHandDoorEnv"}
    spec = importers.environment(changed(store, **door))
    assert demo_imports._task("x", {}, spec, None, None) == demo_imports.find_task("door")
    fetch = {"id": "FetchReach-v4", "entry_point": "gymnasium_robotics.envs.fetch.reach:X", "kwargs": {}}
    spec = importers.environment(changed(store, **fetch))
    for _ in range(2):  # now, and once it is registered: another process finds it by its module alone
        assert demo_imports._task("x", {}, spec, None, None).id == "gymnasium_robotics:FetchReach-v4"


def test_discrete_actions_are_refused(tmp_path):
    env = minari_sets.made("CartPole-v1")
    steps = {"rewards": np.ones(3), "terminations": np.zeros(3, bool), "truncations": np.array([0, 0, 1], bool)}
    episode = {"seed": 1, "observations": np.zeros((4, 4), np.float32), "actions": np.zeros(3, np.int64), **steps}
    minari_sets.write("classic/cart-v0", env, [episode])
    with pytest.raises(UserError, match=r"has actions Discrete\(2\); rrl's agents act in a box of continuous numbers"):
        taken("classic/cart-v0", tmp_path / "a")


def test_the_task_is_a_gin_file_a_shipped_one_or_an_id(pusher, tmp_path):
    source, mine = PUSHER.format("expert"), tmp_path / "mine.gin"
    mine.write_text("Experiment.env = @Gymnasium()\nGymnasium.id = 'Pusher-v5'\nGymnasium.state_indices = (0, 1)\n")
    demos, told = taken(source, tmp_path / "a", task=str(mine))
    assert "first observations differ from the recorded ones by at most 0\n" in told  # of all of it, not of two numbers
    assert sets.load(tmp_path / "a").contents() == taken(source, tmp_path / "b", task="Pusher-v5")[0].contents()
    whole = tmp_path / "run.gin"
    whole.write_text("include 'mjrl_reacher_state.gin'\ninclude 'mine.gin'\nDAPG.trajectories = 3\n")
    assert taken(source, tmp_path / "c", task=str(whole))[0].contents() == demos.contents()
    for task, message in (
        ("env/adroit_door", "episode 0: the initial state lacks qpos"),
        ("Reacher-v5", "its observations have 23 numbers, those of Reacher-v5 10"),
        ("Pusher-v55", "did you mean 'Pusher-v5'"),
        ("nowhere.gin", "there is no such gin file"),
        ("method/rrl", "nothing here binds Experiment.env to a component"),
        ("pushr", "no environment has a task 'pushr'"),
    ):
        with pytest.raises(UserError, match=message):
            taken(source, tmp_path / "d", task=task)
    with pytest.raises(UserError, match="no setting 'protocol'"):
        taken(source, tmp_path / "d", protocol="stock")


def test_the_command_line_takes_an_id(pusher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["demos", "import", PUSHER.format("expert"), "pusher", "--task", "Pusher-v5"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0 and (tmp_path / "pusher.npz").exists(), result.output


def as_robomimic(path, episodes, states, **attributes):
    """States [time, qpos, qvel] before each action, actions in the environment's own range."""
    with h5py.File(path, "w") as file:
        for i, (episode, (qpos, qvel)) in enumerate(zip(episodes, states, strict=True)):
            time = np.arange(len(qpos))[:, None] * 0.05
            file[f"data/demo_{i}/actions"] = episode["actions"]
            file[f"data/demo_{i}/states"] = np.concatenate([time, qpos, qvel], axis=1)[:-1]
        file["data"].attrs["env_args"] = json.dumps(attributes)
    return path


def test_robomimic_states_begin_an_episode(pusher, tmp_path):
    _, episodes, states = pusher
    path = as_robomimic(tmp_path / "lift.hdf5", episodes, states, env_name="Pusher-v5", type=2, env_kwargs={})
    demos, told = taken(path, tmp_path / "a")
    np.testing.assert_array_equal(demos.initial["qpos"], [qpos[0] for qpos, _ in states])
    np.testing.assert_array_equal(demos.actions, np.concatenate([each["actions"] for each in episodes]) / 2)
    assert "at their recorded positions and velocities; there is no recorded first observation to compare with" in told
    assert "positions differ from the recorded ones by at most 0; " in told
    path = as_robomimic(tmp_path / "other.hdf5", episodes, states, env_name="Lift", type=1, env_kwargs={})
    assert importers.environment(str(path)) == {}
    with pytest.raises(UserError, match="Say it with --task: its name, gymnasium's id"):
        taken(path, tmp_path / "b")
    with pytest.raises(
        UserError, match="episode 0: states of 23 numbers are not the 4 of qpos and 4 of qvel of this task"
    ):
        taken(path, tmp_path / "b", task="Reacher-v5")


def test_states_with_quaternions_are_split_by_the_task(tmp_path):
    """Ant has 15 positions and 14 velocities: with a time 30 numbers, that are no 15 and 15."""
    env = minari_sets.made("Ant-v5")
    episode, states = minari_sets.episode(env, 3, 10)
    path = as_robomimic(tmp_path / "a.hdf5", [episode], [states], env_name="Ant-v5", type=2)
    demos, told = taken(path, tmp_path / "a")
    np.testing.assert_array_equal(demos.initial["qpos"][0], states[0][0])
    assert "positions differ from the recorded ones by at most 0; " in told


def test_what_positions_do_not_tell_is_told(tmp_path):
    """A reset of the door draws where its frame stands, in the model: Minari has it among the options of the reset."""
    env = minari_sets.made("gymnasium_robotics:AdroitHandDoor-v1")
    env.reset(seed=4)
    options = {"initial_state_dict": {k: np.asarray(v, float) for k, v in env.unwrapped.get_env_state().items()}}
    drawn, states = minari_sets.episode(env, 9, STEPS)
    given, placed = minari_sets.episode(env, 9, STEPS, options=options)
    path = as_robomimic(tmp_path / "a.hdf5", [drawn], [states])
    task = {"task": "gymnasium_robotics:AdroitHandDoor-v1"}
    with pytest.raises(
        UserError, match=r"a reset draws body_pos.* too, which these don't tell\): no first observation"
    ):
        taken(path, tmp_path / "a", **task)
    minari_sets.write("D4RL/doors-v0", env, [given])
    demos, told = taken("D4RL/doors-v0", tmp_path / "b", **task)
    np.testing.assert_array_equal(demos.qpos, placed[0].astype(np.float32))
    assert (
        "episodes begin with their recorded seeds; first observations differ from the recorded ones by at most 0"
        in told
    )
    assert commands.verify(str(tmp_path / "b"), print)


def test_an_environment_without_mujoco_begins_by_seeds_alone(tmp_path):
    """With a dict observation, and actions of [-2, 6]."""
    env = minari_sets.made(TOY)
    episode, _ = minari_sets.episode(env, 5, 10)
    minari_sets.write("toys/toy-v0", env, [episode])
    lines = []
    demos, told = taken("toys/toy-v0", tmp_path / "a")
    assert build(sets.environment(demos.facts)).config.id == TOY
    assert "with their recorded seeds; first observations differ from the recorded ones by at most 0\n" in told
    np.testing.assert_allclose(demos.actions, (episode["actions"] - 2) / 4, atol=1e-6)
    assert demos.qpos.shape == (11, 0)
    assert commands.verify(str(tmp_path / "a"), lines.append)
    assert any("no MuJoCo simulates it" in line for line in lines)
    assert any(
        line.startswith("no playback by states: helpers.gym_tasks:helpers/Toy-v0 can't be put") for line in lines
    )
    minari_sets.write("toys/other-v0", env, [{**episode, "seed": 6}])
    with pytest.raises(UserError, match="Toy-v0 does not begin as recorded: beginning with their recorded seeds"):
        taken("toys/other-v0", tmp_path / "b", task=TOY)


def test_every_command_knows_such_a_set(imported, tmp_path):
    iio = pytest.importorskip("imageio.v3")
    lines = []
    assert commands.verify(str(imported), lines.append)
    assert "bit for bit" in lines[1] and lines[2].startswith("playback by states: ")
    commands.info(str(imported), lines.append)
    film = {"cameras": [], "look": "fast", "chosen": [1], "size": 64, "every": 10}
    commands.film(str(imported), tmp_path / "a.mp4", print, by="actions", **film)
    commands.film(str(imported), tmp_path / "b.mp4", print, by="states", **film)
    a, b = (iio.imread(tmp_path / name, plugin="pyav") for name in ("a.mp4", "b.mp4"))
    assert a.shape == b.shape == (3, 64, 64, 3)
    assert np.abs(a[:, 24:].astype(int) - b[:, 24:]).mean() < 6 and a[0, 24:].std() > 10
    commands.export(str(imported), "rrl/pushing/expert-v0", print)
    demos, back = sets.load(imported), taken("rrl/pushing/expert-v0", tmp_path / "back", task="Pusher-v5")[0]
    np.testing.assert_array_equal(back.actions, demos.actions)
    np.testing.assert_array_equal(back.initial["seed"], demos.initial["seed"])


def test_a_set_goes_through_lerobots_layout_bit_for_bit(imported, tmp_path):
    pytest.importorskip("pyarrow")
    from rrl.commands import lerobot

    settings = {"cameras": (), "look": "fast", "size": 32, "fps": None, "task": None, "state": "robot"}
    lerobot.export(str(imported), tmp_path / "le", print, **settings)
    back, _ = taken(tmp_path / "le", tmp_path / "back")
    assert back.contents() == sets.load(imported).contents()


def test_frankas_kitchen_begins_by_its_seeds_and_without_them_is_told_to_drift(tmp_path):
    """Each start is the same, but noise on what the robot observes goes into how it is steered."""
    gym_packages.mend("gymnasium_robotics")
    tasks = {"tasks_to_complete": ["kettle", "microwave"], "terminate_on_tasks_completed": False}
    env = minari_sets.made("gymnasium_robotics:FrankaKitchen-v1", **tasks, max_episode_steps=450)
    episode, states = minari_sets.episode(env, 2**63 + 5, STEPS)
    minari_sets.write("D4RL/kitchen/a-v2", env, [episode])
    demos, told = taken("D4RL/kitchen/a-v2", tmp_path / "a")
    assert "with their recorded seeds; first observations differ from the recorded ones by at most 0\n" in told
    np.testing.assert_allclose(demos.qpos, states[0], atol=1e-6)
    made = build(sets.environment(demos.facts))
    assert made.config.id == "gymnasium_robotics:FrankaKitchen-v1" and made.horizon == 450
    minari_sets.write("D4RL/kitchen/b-v2", env, [{**episode, "seed": None}])
    _, told = taken("D4RL/kitchen/b-v2", tmp_path / "b")
    assert "episodes begin as a reset with seed 0 does, since no seed was recorded; first observations differ" in told
    (line,) = [line for line in told.splitlines() if line.startswith("observations differ")]
    assert float(line.partition("at most ")[2].partition(")")[0]) > 1e-3


RUN = """
Experiment.env = @Gymnasium()
Experiment.encoder = @State()
Experiment.agent = @DAPG()
Experiment.demos = @DemoSet()
Experiment.iterations = 1
Experiment.evaluators = ()
Experiment.num_envs = 2
Experiment.workers = 0
Experiment.threads = 1
Gymnasium.id = 'Pusher-v5'
Gymnasium.horizon = 20
DAPG.trajectories = 2
DAPG.bc_epochs = 1
DAPG.bc_batch = 8
DAPG.policy_hidden = (8,)
DAPG.value_batch = 8
DemoSet.source = '{}'
"""


def test_dapg_learns_from_it_and_its_policy_records(imported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (prepared(tmp_path) / "run.gin").write_text(RUN.format(imported))
    assert process.start("run.gin", []) == 0
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/run.json"))
    assert results.read(folder).rows[-1].metrics["iteration"] == 1
    commands.make(folder / "policy.safetensors", tmp_path / "mine", 2, 0, None, print)
    assert sets.load(tmp_path / "mine").lengths.tolist() == [20, 20]
    assert commands.verify(str(tmp_path / "mine"), print)
