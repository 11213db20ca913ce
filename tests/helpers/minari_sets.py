"""Small Minari datasets, recorded in gymnasium's own environments without rrl."""

import warnings

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer


def episode(env, seed, steps, *, options=None, told=True):
    """An episode of smooth random actions, its qpos and qvel beside it (None where there are none)."""
    rng = np.random.default_rng(seed % 1000)
    space, core = env.action_space, env.unwrapped
    seen, states, actions, rewards = [env.reset(seed=seed, options=options)[0]], [], [], []
    model = hasattr(core, "data")
    for _ in range(steps + 1):
        states += [(core.data.qpos.copy(), core.data.qvel.copy())] if model else []
        if len(actions) == steps:
            break
        drawn = rng.uniform(space.low, space.high).astype(space.dtype)
        actions.append(np.float32(0.5) * drawn + np.float32(0.5) * actions[-1] if actions else drawn)
        raw, reward, *_ = env.step(actions[-1])
        seen.append(raw)
        rewards.append(reward)
    ends = np.arange(1, steps + 1) == steps
    buffer = {
        "observations": _stacked(seen),
        "actions": np.stack(actions),
        "rewards": np.array(rewards),
        "terminations": np.zeros(steps, bool),
        "truncations": ends,
    }
    return {"seed": seed if told else None, "options": options, **buffer}, _states(states)


def write(name, env, episodes, **infos):
    """The dataset `name` of these episodes; `infos` of each by name, [L + 1, n]."""
    buffers = [
        EpisodeBuffer(id=i, infos={k: v[i] for k, v in infos.items()} or None, **each)
        for i, each in enumerate(episodes)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(name, buffers, env=env)


def made(name, **kwargs):
    return gymnasium.make(name, disable_env_checker=True, **kwargs)


def _stacked(seen):
    if isinstance(seen[0], dict):
        return {key: _stacked([each[key] for each in seen]) for key in seen[0]}
    return np.stack(seen)


def _states(states):
    return tuple(np.stack(part) for part in zip(*states, strict=True)) or None
