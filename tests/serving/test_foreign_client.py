"""The unmodified openpi-client from the package index drives our server, in an environment of its own.

It demands numpy < 2, and does not declare typing_extensions, which it imports; so it cannot live in ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import foreign as environments
from tests.support import small, untrained
from tests.support.once import once
from tests.support.serving import DIGEST, running, served
from tests.support.untrained import H, T
from vqbet.serving.handshake import KEY
from vqbet.serving.server import ServerOptions

PACKAGES = ("numpy==1.26.4", "openpi-client==0.1.2", "typing_extensions", "websockets<18")
INSTALLING_S = 280.0
TOKEN = "s3cret"
# Drives a server with openpi's own classes, and prints what came back.
DRIVE = """
import json, sys
import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, token, horizon, steps = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), np.load(sys.argv[4])
client = WebsocketClientPolicy("127.0.0.1", port, api_key=token)
said = client.get_server_metadata()
chunks = [client.infer({"state": step, "prompt": "push the block"}) for step in steps]
again = WebsocketClientPolicy("127.0.0.1", port, api_key=token)
broker = ActionChunkBroker(again, action_horizon=horizon)
broken = [broker.infer({"observation/state": step.astype(np.float64)}) for step in steps]
broker.reset()
try:
    again.infer({"state": np.full(len(steps[0]), np.nan)})
    error = ""
except RuntimeError as refused:
    error = str(refused)
print(json.dumps({
    "numpy": np.__version__,
    "metadata": said,
    "seeds": [chunks[0]["vqbet"]["seed"], broken[0]["vqbet"]["seed"]],
    "steps": [reply["vqbet"]["step"] for reply in chunks],
    "actions": [reply["actions"].tolist() for reply in chunks],
    "types": sorted({str(reply["actions"].dtype) for reply in chunks}),
    "timing": chunks[-1]["server_timing"],
    "broken": [reply["actions"].tolist() for reply in broken],
    "error": error,
}))
"""


def install(folder: Path) -> None:
    """Make an environment with the client."""
    environments.install(folder, "openpi-client", PACKAGES, timeout_s=INSTALLING_S)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of the client's environment."""
    return once(tmp_path_factory, "openpi-client", install) / "env" / "bin" / "python"


def drive(python: Path, port: int, horizon: int, steps: np.ndarray, folder: Path) -> dict[str, Any]:
    np.save(folder / "steps.npy", steps)
    done = subprocess.run(
        [str(python), "-c", DRIVE, str(port), TOKEN, str(horizon), str(folder / "steps.npy")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_openpi_s_own_client_drives_the_server(foreign: Path, tmp_path: Path) -> None:
    steps = small.observations(2 * H, 1)[:, 0]
    with running(served(untrained.build("chunk")), ServerOptions(token=TOKEN, grace_s=0.2)) as own:
        with urllib.request.urlopen(f"{own.http}/healthz") as answer:
            assert answer.read() == b"OK\n"
        found = drive(foreign, own.port, H, steps, tmp_path)
    assert found["numpy"].startswith("1.26")
    assert found["metadata"][KEY]["digest"] == DIGEST
    assert found["metadata"]["action_horizon"] == H
    assert found["types"] == ["float32"]
    assert found["steps"] == list(range(2 * H))
    assert found["timing"].keys() == {"infer_ms", "prev_total_ms"}
    np.testing.assert_array_equal(np.array(found["actions"], np.float32), plans(steps, found["seeds"][0], range(2 * H)))
    # The broker asks once per chunk and plays it; its second chunk is a new plan, not the rest of the first.
    asked = plans(steps[::H], found["seeds"][1], range(2))
    np.testing.assert_array_equal(np.array(found["broken"], np.float32), asked.reshape(2 * H, -1))
    assert "Error in inference server:\nobservation 'o0' is nan m" in found["error"]
    assert "Traceback" not in found["error"]


def plans(observed: np.ndarray, seed: int, steps: range) -> np.ndarray:
    """Return the plans (N, H, A) of an episode that sees these observations, clamped."""
    actor = untrained.build("chunk")
    history = np.concatenate([np.repeat(observed[:1], T - 1, axis=0), observed])
    windows = [history[step : step + T][None] for step in range(len(observed))]
    nothing = np.zeros((1, 0), np.float32)
    made = [
        actor.plan(window, nothing, np.array([seed]), np.array([step])).chunk[0]
        for window, step in zip(windows, steps, strict=True)
    ]
    return np.clip(np.stack(made), np.float32(-0.8), np.float32(0.8))
