"""MyEvaluator: how smoothly a policy acts, to begin from."""

import numpy as np

from rrl.evaluators.base import Episodes, Evaluator
from rrl.evaluators.success import evaluate
from rrl.registry import register


@register
class MyEvaluator(Evaluator):
    """How far actions move from one step to the next (rms over joints and steps; 0: never)."""

    class Config(Evaluator.Config):
        """How many episodes."""

        episodes: Episodes = 10
        """Evaluation episodes, the same every time."""

        def steps(self, env):
            """Agent steps, at most: what estimates and progress count with."""
            return self.episodes * env.horizon

    def run(self, policy, env, context):
        """Yields `action_change`, of actions in [-1, 1]."""
        rollout = evaluate(policy, context.collector, self.config.episodes, context, sampled=False)
        actions = rollout.actions.clip(-1, 1)
        moved = np.diff(actions, axis=0)[np.diff(rollout.episode) == 0]
        change = float(np.sqrt(np.square(moved).mean()))
        context.say(f"mean action: moves by {change:.3f} a step (rms)")
        yield "action_change", change
