"""The G1 humanoid's demonstrations of ../shared/data: LeRobot v2.1, 26 joints observed and commanded at 30 Hz."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from vqbet.contract import Channel, Demonstrations, Spec

TASK = "g1_bottle"


def g1(folder: Path) -> Demonstrations:
    """Return the states and actions of all episodes, without pictures; limits are what was seen, with a margin."""
    from pyarrow import parquet

    info = json.loads((folder / "meta" / "info.json").read_text(encoding="utf-8"))
    tables = [parquet.read_table(path) for path in sorted((folder / "data").glob("*/*.parquet"))]
    arrays = {
        name: np.concatenate([np.stack(table[name].to_numpy(zero_copy_only=False)) for table in tables])
        for name in ("observation.state", "action")
    }
    ends = np.cumsum([table.num_rows for table in tables])
    demos = Demonstrations.of(arrays["observation.state"], arrays["action"], ends, control_hz=float(info["fps"]))
    observed, acted = (
        tuple(
            Channel(name, "rad", channel.low, channel.high)
            for name, channel in zip(info["features"][key]["names"][0], channels, strict=True)
        )
        for key, channels in (("observation.state", demos.spec.observation), ("action", demos.spec.action))
    )
    spec = Spec(TASK, observed, acted, demos.spec.control_hz, action_kind="absolute", frame="")
    columns = {**demos.columns, "task": np.full(len(ends), TASK), "source": np.full(len(ends), "YifanTian07")}
    return replace(demos, spec=spec, columns=columns)
