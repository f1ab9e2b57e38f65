"""The packages `lerobot` and `robomimic` themselves, beside this environment's torch: what they say of data sets."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import foreign

# Their own requirements exclude our versions of numpy, torch and others, with which they run all the same
PACKAGES = [
    "lerobot==0.4.4",
    "datasets==4.8.5",
    "dill==0.4.1",
    "multiprocess==0.70.19",
    "xxhash==4.1.0",
    "jsonlines==4.0.0",
    "draccus==0.11.6",
    "mergedeep==1.3.4",
    "typing-inspect==0.9.0",
    "mypy-extensions==1.1.0",
    "pyyaml-include==2.2",
    "toml==0.10.2",
    "deepdiff==9.1.0",
    "robomimic==0.3.0",
    "termcolor==3.3.0",
]
INSTALLING_S = 240.0
ANSWERING_S = 240.0
# torchvision, of which LeRobot's data sets need a conversion and no decoder
STANDIN = """
import numpy as np
import torch
class ToTensor:
    def __call__(self, picture):
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
"""
# The frames of a set as LeRobot's own class returns them; video by PyAV, since torchcodec is not here
LEROBOT = """
import sys
import av, numpy as np, torch
from lerobot.datasets import lerobot_dataset

def decoded(path, times, tolerance_s, backend=None):
    found, wanted = {}, np.array(times)
    with av.open(str(path)) as film:
        film.seek(int(wanted.min() / film.streams.video[0].time_base), stream=film.streams.video[0])
        for frame in film.decode(video=0):
            near = int(np.abs(wanted - frame.time).argmin())
            if abs(wanted[near] - frame.time) < tolerance_s:
                found[near] = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float() / 255
            if frame.time > wanted.max():
                break
    return torch.stack([found[number] for number in range(len(wanted))])

lerobot_dataset.decode_video_frames = decoded
folder, target, every, *keys = sys.argv[1:]
data = lerobot_dataset.LeRobotDataset("own/set", root=folder)
rows = [data[number] for number in range(0, len(data), int(every))]
answer = {key: np.stack([np.asarray(row[key]) for row in rows]) for key in keys}
answer |= {"fps": data.fps, "episodes": data.num_episodes, "frames": len(data), "task": data[0]["task"]}
answer |= {f"mean {key}": np.asarray(data.meta.stats[key]["mean"]) for key in keys}
answer["names"] = data.meta.names["observation.state"] or []
np.savez(target, **answer)
"""
CONVERT = """
import sys
from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset
convert_dataset(sys.argv[2], root=sys.argv[1], push_to_hub=False)
"""
# The trajectories of one filter of a file, as robomimic's own class returns them
ROBOMIMIC = """
import sys
import numpy as np
from robomimic.utils import obs_utils
from robomimic.utils.dataset import SequenceDataset
path, target, mask, *keys = sys.argv[1:]
pictures = [key for key in keys if key.endswith("image")]
low = [key for key in keys if key not in pictures]
obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": low, "rgb": pictures}})
data = SequenceDataset(path, obs_keys=keys, dataset_keys=["actions"], filter_by_attribute=mask or None,
                       load_next_obs=False, hdf5_use_swmr=False, hdf5_cache_mode=None)
answer = {"demos": np.array(data.demos)}
for demo in data.demos:
    index = data._demo_id_to_start_indices[demo]
    whole = range(index, index + data._demo_id_to_demo_length[demo])
    steps = [data[number] for number in whole]
    answer[f"{demo} actions"] = np.stack([step["actions"][0] for step in steps])
    for key in keys:
        answer[f"{demo} {key}"] = np.stack([step["obs"][key][0] for step in steps])
np.savez(target, **answer)
"""


def lerobot(folder: Path, scratch: Path, *keys: str, every: int = 1) -> dict[str, Any]:
    """Return every n-th frame of a v3.0 set by key, and what LeRobot says of the set."""
    return _answered(LEROBOT, scratch, str(folder), str(every), *keys)


def converted(folder: Path, scratch: Path) -> Path:
    """Convert a v2.1 set in place to v3.0 by LeRobot's own command, and return it."""
    _run(CONVERT, scratch, str(folder.parent), folder.name)
    return folder


def robomimic(path: Path, scratch: Path, mask: str, *keys: str) -> dict[str, Any]:
    """Return actions and observed keys of the demonstrations under a filter, by "<demo> <key>"; "demos" lists them."""
    return _answered(ROBOMIMIC, scratch, str(path), mask, *keys)


def _answered(script: str, scratch: Path, asked: str, *words: str) -> dict[str, Any]:
    target = scratch / "answer.npz"
    _run(script, scratch, asked, str(target), *words)
    with np.load(target) as found:
        return {name: found[name] for name in found.files}


def _run(script: str, scratch: Path, *words: str) -> None:
    python = foreign.kept("oracles", ["--no-deps", *PACKAGES], timeout_s=INSTALLING_S, layered=True)
    standin = scratch / "standin" / "torchvision"
    standin.mkdir(parents=True, exist_ok=True)
    (standin / "__init__.py").touch()
    (standin / "transforms.py").write_text(STANDIN)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch / "huggingface"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {**os.environ, **offline, "PYTHONPATH": str(standin.parent)}
    done = subprocess.run(
        [str(python), "-c", script, *words],
        cwd=scratch,
        env=environment,
        capture_output=True,
        text=True,
        timeout=ANSWERING_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
