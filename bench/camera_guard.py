"""What a guard of cameras finds: episodes held out must pass, and what is planted in their pictures should not.

    OMP_NUM_THREADS=1 python -m bench.camera_guard [--pusht FOLDER] [--video FILE ...]

Push-T's own pictures (by default in $VQBET_DEMOS or ../shared/data), every tenth episode held out; films of a robot's
camera, one episode each, scaled to 96 x 96, each held out in turn. Prints the greatest share of what is allowed after
any number of the held-out pictures, and of each planted fault the share of pictures after which it is found, by
thumbnails and by light, colours and detail.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from tests.support.synthetic import synthetic
from vqbet.contract import Camera, Demonstrations
from vqbet.policies import familiarity

SIDE, EVERY = 96, 10
Pictures = UInt8[np.ndarray, "N height width 3"]


def covered(shown: Pictures) -> Pictures:
    found = shown.copy()
    found[:, 58:77, 58:77] = 30
    return found


def moved(shown: Pictures, pixels: int) -> Pictures:
    return np.concatenate([shown[:, :, pixels:], np.repeat(shown[:, :, -1:], pixels, axis=2)], axis=2)


PLANTED: dict[str, Callable[[Pictures], Pictures]] = {
    "moved by 4 %": lambda shown: moved(shown, SIDE * 4 // 100),
    "moved by 10 %": lambda shown: moved(shown, SIDE // 10),
    "upside down": lambda shown: shown[:, ::-1],
    "mirrored": lambda shown: shown[:, :, ::-1],
    "red and blue exchanged": lambda shown: shown[..., ::-1],
    "a twentieth covered": covered,
    "darker by 0.7": lambda shown: (shown * 0.7).astype(np.uint8),
    "brighter by a tenth": lambda shown: np.clip(shown * 1.1 + 6, 0, 255).astype(np.uint8),
}


def demonstrations(shown: Pictures, lengths: Int[np.ndarray, " E"]) -> Demonstrations:
    """Return episodes with these pictures; the numbers beside them are made up."""
    made, steps = synthetic(1, seed=0), len(shown)
    return replace(
        made,
        spec=replace(made.spec, cameras=(Camera("top", SIDE, SIDE),)),
        observation=np.resize(made.observation, (steps, made.observation.shape[1])),
        action=np.resize(made.action, (steps, made.action.shape[1])),
        time_s=np.arange(steps) / 10,
        episode_ends=np.cumsum(lengths),
        columns={},
        state=None,
        cameras={"top": shown},
    )


def found(name: str, taught: Demonstrations, held: list[Pictures]) -> Iterable[str]:
    """Yield lines about one camera."""
    parts = familiarity.fitted(taught)
    known = familiarity.read(parts, taught.spec.cameras)["top"]

    def far(shown: Pictures) -> list[float]:
        met, shares = familiarity.Acquaintance(known), []
        for picture in shown:
            met.see(picture[None])
            shares.append(met.share)
        return shares

    def unlike(shown: Pictures) -> np.ndarray:
        looks = familiarity.looks(shown)
        beyond = (looks < parts["limit.camera_low"]) | (looks > parts["limit.camera_high"])
        return np.asarray(beyond.any(1))

    shares = np.concatenate([far(each) for each in held])
    refused = int(sum(unlike(each).sum() for each in held) + (shares > 1).sum())
    yield f"{name}: {len(shares)} pictures held out: {shares.max():.2f} of what is allowed at most, {refused} refused"
    for fault, plant in PLANTED.items():
        planted = [plant(each) for each in held]
        by_far = np.concatenate([np.array(far(each)) > 1 for each in planted])
        by_look = np.concatenate([unlike(each) for each in planted])
        either = by_far | by_look
        episodes = sum(map(np.any, np.split(either, np.cumsum([len(each) for each in held])[:-1])))
        yield (
            f"  {fault:24s} found after {either.mean():4.0%} of pictures ({by_far.mean():.0%} and "
            f"{by_look.mean():.0%}), in {episodes} of {len(held)} episodes"
        )


def film(path: Path) -> Pictures:
    """Return the pictures of a film, scaled by the mean over areas."""
    import av
    import cv2

    with av.open(str(path)) as file:
        shown = (frame.to_ndarray(format="rgb24") for frame in file.decode(video=0))
        return np.stack([cv2.resize(each, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for each in shown])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("VQBET_DEMOS", "../shared/data"))
    parser.add_argument("--pusht", type=Path, default=data / "pusht/pusht_cchi_v7_replay.zarr")
    parser.add_argument("--video", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    import zarr

    group = zarr.open_group(str(asked.pusht), mode="r")
    shown, ends = (np.asarray(group[each]) for each in ("data/img", "meta/episode_ends"))
    sets = {"Push-T": (np.split(shown.astype(np.uint8), ends[:-1]), [*range(0, len(ends), EVERY)])}
    films = [film(path) for path in asked.video]
    sets |= {f"camera, film {number + 1}": (films, [number]) for number in range(len(films))}
    for name, (episodes, held) in sets.items():
        rest = [each for number, each in enumerate(episodes) if number not in held]
        taught = demonstrations(np.concatenate(rest), np.array([len(each) for each in rest]))
        for line in found(name, taught, [episodes[number] for number in held]):
            print(line, flush=True)


if __name__ == "__main__":
    main()
