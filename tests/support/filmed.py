"""Episodes with a camera that pass validation: an arm that moves smoothly, and a picture of where it is."""

from __future__ import annotations

import numpy as np

from tests.support.foreign_sets import SIZE, TASKS, Made

HEIGHT, WIDTH = SIZE


def filmed(episodes: int, steps: int = 300, first: int = 0) -> list[Made]:
    """Return episodes that differ from one another; equal numbers, from `first` on, are equal episodes."""
    return [_episode(number, steps + number % 7) for number in range(first, first + episodes)]


def _episode(number: int, steps: int) -> Made:
    random = np.random.default_rng(number)
    goals = np.repeat(random.uniform(-1, 1, (steps // 10 + 2, 3)), 10, axis=0)
    state = np.zeros((steps + 1, 3), np.float32)
    for step in range(steps):
        state[step + 1] = state[step] + 0.2 * (goals[step] - state[step])
    down, right = ((state[:-1, axis] * 0.3 + 0.5) * side for axis, side in enumerate((HEIGHT, WIDTH)))
    rows, columns = np.arange(HEIGHT, dtype=np.float32)[:, None], np.arange(WIDTH, dtype=np.float32)
    apart = np.abs(rows - down[:, None, None]) + np.abs(columns - right[:, None, None])
    light = np.clip(255 - 4 * apart, 40, 255).astype(np.uint8)
    pictures = np.stack([light, np.broadcast_to(rows * 3, light.shape).astype(np.uint8), 255 - light // 2], axis=-1)
    return Made(state[:-1], state[1:, :2], pictures, TASKS[number % 2])
