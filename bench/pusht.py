"""Control steps per second of Push-T, compared with gym-pusht's own environment in the same run.

    python -m bench.pusht

Both play the same actions: half of them go towards the block, so that most push. The candidates alternate for several
rounds; the best round counts. One process, one thread.
"""

from __future__ import annotations

import numpy as np

from bench import rates
from vqbet import environment

STEPS, ROUNDS, BATCHES = 150, 5, (1, 8, 200)


def actions(episodes: int) -> np.ndarray:
    """Return actions (STEPS, episodes, 2) in px, half of them near the goal, where blocks are, half anywhere."""
    generator = np.random.default_rng(0)
    anywhere = generator.uniform(50, 450, (STEPS, episodes, 2))
    towards = generator.normal(256, 60, (STEPS, episodes, 2)).clip(0, 512)
    return np.where(generator.random((STEPS, episodes, 1)) < 0.5, towards, anywhere)


def main() -> None:
    environment.prepare()
    from gym_pusht.envs.pusht import PushTEnv

    from vqbet.tasks.pusht.world import PushT

    candidates = {"gym-pusht, state": rates.gymnasium(PushTEnv(obs_type="state"), actions(1)[:, 0])}
    candidates |= {f"vqbet, {count} episodes": rates.ours(PushT(), actions(count)) for count in BATCHES}
    rates.compare(candidates, rounds=ROUNDS)


if __name__ == "__main__":
    main()
