"""The film of predicted against demonstrated chunks: one clock for all panels, nothing loaded, the same text again."""

from __future__ import annotations

import re

import numpy as np

from vqbet.contract import Channel
from vqbet.evaluation import offline_figures

STEPS, CHUNK, NAME = 90, 12, "episodes-predicted"
CHANNELS = [Channel(f"joint{number}", "rad", -1.0, 1.0) for number in range(3)]
STARTS = np.arange(1, STEPS - CHUNK, CHUNK)


def film() -> str:
    time = np.arange(STEPS)
    demonstrated = np.stack([np.sin(time / 9 + number) for number in range(3)], axis=1)
    predicted = np.stack([demonstrated[start : start + CHUNK] + 0.1 for start in STARTS])
    return offline_figures.chunks(demonstrated, predicted, STARTS, CHANNELS, 30.0, name=NAME)


def test_each_chunk_stands_out_when_its_actions_would_run() -> None:
    found = film()
    keys = re.findall(rf"([\d.]+)%\{{--{NAME}:(\d+)\}}", found)
    assert [int(scene) for _, scene in keys] == list(range(len(STARTS)))
    np.testing.assert_allclose([float(at) for at, _ in keys], 100 * STARTS / STEPS, atol=1e-3)
    assert f"#{NAME}{{animation:{NAME} 3.000s step-end infinite}}" in found, "90 steps at 30 Hz"


def test_every_panel_follows_the_one_clock() -> None:
    found = film()
    for scene in range(len(STARTS)):
        assert found.count(f'class="{NAME}-scene{scene}"') == 2 * len(CHANNELS), "a line and a dot in each panel"
        assert found.count(f".{NAME}-scene{scene}{{opacity:") == 1
    assert f"{NAME}-scene{len(STARTS)}" not in found
    assert found.count("@keyframes") == 1


def test_it_stands_still_on_wish_and_is_one_piece_of_html() -> None:
    found = film()
    assert "prefers-reduced-motion" in found
    assert "<number>" not in found, "it would open an element inside of the picture"
    assert len(set(re.findall(r'id="([^"]+)"', found))) == len(re.findall(r'id="([^"]+)"', found))
    assert "http" not in found
    assert found == film()
