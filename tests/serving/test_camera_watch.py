"""Cameras that are black, frozen, swapped, covered or moved are found, and those that are well are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.support import seeing_pusht, untrained
from tests.support.guarded import handshake
from tests.support.serving import DIGEST, running
from vqbet.contract import Camera, Demonstrations, ServingError
from vqbet.policies import familiarity
from vqbet.policies.familiarity import LOOKS, Acquaintance
from vqbet.serving.camera_watch import CameraWatch
from vqbet.serving.client import connect
from vqbet.serving.guard import Limits, Reason
from vqbet.serving.limits import LIMIT, listed
from vqbet.serving.looks import Glance
from vqbet.serving.recorder import Recorder
from vqbet.serving.seats import Served
from vqbet.serving.simrobot import Drive, Faults, SimulatedRobot
from vqbet.tasks.pusht.world import PushT

STEPS = 24


CAMERAS = (Camera("left", 96, 96), Camera("right", 96, 96))


def two_cameras() -> Demonstrations:
    """Return demonstrations as two cameras see them: one from above, one from the other side and in other light."""
    demos = seeing_pusht.demonstrations()
    pictures = np.asarray(demos.cameras["image"])
    shown = {"left": pictures, "right": np.ascontiguousarray(pictures[:, ::-1, ::-1] // 2)}
    return replace(demos, spec=replace(demos.spec, cameras=CAMERAS), cameras=shown)


@cache
def fitted() -> dict[str, np.ndarray]:
    return familiarity.fitted(two_cameras())


def shares(**pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Return the share of each picture by itself."""
    known = familiarity.read(fitted(), CAMERAS)
    return {name: known[name].share(familiarity.thumbnails(each)) for name, each in pictures.items()}


def met(name: str, pictures: np.ndarray) -> float:
    """Return what the server says of a camera after these pictures of an episode."""
    found = Acquaintance(familiarity.read(fitted(), CAMERAS)[name])
    found.see(pictures)
    return found.share


def test_pictures_of_training_and_new_ones_are_familiar() -> None:
    shown = {name: np.asarray(each) for name, each in two_cameras().cameras.items()}
    assert all(each.max() <= 1 for each in shares(**shown).values())
    world, states = PushT(camera=True), seeing_pusht.demonstrations().state
    assert states is not None
    world.restore(states[::11] + np.array([3, -3, 4, 4, 0.1]))  # like those of training, and none of them
    new = world.cameras(np.arange(len(states[::11])))["image"]
    found = shares(left=new, right=np.ascontiguousarray(new[:, ::-1, ::-1] // 2))
    assert all(each.max() <= 1 for each in found.values()), found
    looks = familiarity.looks(new)
    assert (looks >= fitted()["limit.camera_low"][: len(LOOKS)]).all()
    assert (looks <= fitted()["limit.camera_high"][: len(LOOKS)]).all()


def blurred(pictures: np.ndarray) -> np.ndarray:
    """Return pictures of which each pixel is the mean of the 9 x 9 around it."""
    padded = np.pad(pictures, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge").astype(np.float64)
    around = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), (1, 2))
    return around.mean((-2, -1)).astype(np.uint8)


@pytest.mark.parametrize(
    "planted",
    [
        lambda left, right: (np.zeros_like(left), right),  # no signal
        lambda left, right: (np.full_like(left, 255), right),  # over-exposed
        lambda left, right: (right, left),  # plugs exchanged
        lambda left, right: (left, np.random.default_rng(0).integers(0, 256, right.shape, np.uint8)),  # no cable
        lambda left, right: (blurred(left), right),  # out of focus
        lambda left, right: (left, right[:, :, np.random.default_rng(0).permutation(96)]),  # columns in another order
    ],
    ids=["black", "white", "swapped", "noise", "blurred", "mixed"],
)
def test_what_is_wrong_with_a_camera_is_found(planted: Any) -> None:
    shown = [np.asarray(each)[::7] for each in two_cameras().cameras.values()]
    left, right = planted(*shown)
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    far = np.maximum(*shares(left=left, right=right).values()) > 1
    seen = np.concatenate([familiarity.looks(left), familiarity.looks(right)], axis=1)
    other = ((seen < fitted()["limit.camera_low"]) | (seen > fitted()["limit.camera_high"])).any(1)
    assert (far | other).all()


@pytest.mark.parametrize(
    "planted",
    [
        lambda shown: np.roll(shown, 20, axis=2),  # the camera was moved
        lambda shown: shown[:, ::-1],  # and turned over
        lambda shown: shown[:, :, ::-1],
        lambda shown: np.where(np.indices((96, 96)).max(0)[..., None] < 30, 30, shown),  # a hand before it
    ],
    ids=["moved", "turned", "mirrored", "partly covered"],
)
def test_a_camera_that_looks_elsewhere_is_found_after_some_pictures(planted: Any) -> None:
    known, shown = many()
    for pictures, wanted in ((shown, False), (planted(shown).astype(np.uint8), True)):
        found = Acquaintance(known)
        found.see(pictures)
        assert (found.share > 1) == wanted


@cache
def many() -> tuple[familiarity.Familiarity, np.ndarray]:
    """Return what 60 episodes of Push-T, blocks anywhere, teach of its camera, and RUN new pictures."""
    states, world = np.random.default_rng(1).uniform(100, 400, (640, 5)), PushT(camera=True)
    states[:, 4] = np.random.default_rng(2).uniform(-3, 3, 640)
    world.restore(states)
    shown = world.cameras(np.arange(640))["image"]
    demos, camera = two_cameras(), Camera("image", 96, 96)
    taught = replace(
        demos,
        spec=replace(demos.spec, cameras=(camera,)),
        observation=np.resize(demos.observation, (600, demos.observation.shape[1])),
        action=np.resize(demos.action, (600, demos.action.shape[1])),
        time_s=np.arange(600) / 10,
        episode_ends=np.arange(10, 610, 10),
        columns={},
        state=None,
        cameras={"image": shown[:600]},
    )
    return familiarity.read(familiarity.fitted(taught), [camera])["image"], shown[600:][: familiarity.RUN]


def test_the_newest_pictures_count() -> None:
    shown = np.asarray(two_cameras().cameras["left"])
    found = Acquaintance(familiarity.read(fitted(), CAMERAS)["left"])
    assert found.share == 0
    found.see(np.zeros_like(shown[:1]))
    assert found.share > 1
    found.see(shown[: familiarity.RUN])
    assert found.share == pytest.approx(met("left", shown[: familiarity.RUN]))


def test_thumbnails_are_means_of_fields() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8)
    small = familiarity.thumbnails(pictures).reshape(2, familiarity.GRID, familiarity.GRID, 3)
    np.testing.assert_allclose(small[1, 3, 5], pictures[1, 18:24, 40:48].mean((0, 1)))
    few = familiarity.thumbnails(pictures[:, :4, :20]).reshape(2, familiarity.GRID, familiarity.GRID, 3)
    assert (few[:, 0, 0] == pictures[:, 0, 0]).all()


def test_one_episode_holds_out_parts_of_itself() -> None:
    demos = two_cameras()
    one = replace(demos, episode_ends=demos.episode_ends[-1:], columns={k: v[:1] for k, v in demos.columns.items()})
    assert familiarity.fitted(one)["camera.left.most"] > 0


def test_a_guard_of_before_knows_nothing_of_cameras() -> None:
    assert familiarity.read({"limit.rate": np.ones(2)}, CAMERAS) == {}
    features = {f"camera.left.{name}": np.ones(8) for name in ("mean", "whitening", "most")}
    assert familiarity.read(features, CAMERAS) == {}


def test_how_long_pictures_stand_still_in_training_is_allowed_twice() -> None:
    demos = two_cameras()
    still = {name: np.array(each) for name, each in demos.cameras.items()}
    still["left"][3:11] = still["left"][3]  # 7 steps of an episode of 20, in which the finger moves
    found = familiarity.fitted(replace(demos, cameras=still))
    assert found["limit.camera_still"].tolist() == [14, familiarity.LEAST_STILL]
    quiet = demos.observation.copy()
    quiet[3:11] = quiet[3]  # nobody moves: nothing is wrong with the camera
    found = familiarity.fitted(replace(demos, observation=quiet, cameras=still))
    assert found["limit.camera_still"].tolist() == [familiarity.LEAST_STILL] * 2


def watch(*still: float) -> CameraWatch:
    spec = replace(seeing_pusht.SPEC, cameras=CAMERAS)
    return CameraWatch(Limits.of(handshake(spec, {"camera_still": list(still)})))


def test_looks_are_means_and_spreads_of_colours() -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:, ::28, 0] = 255  # every other column that is looked at
    picture[..., 1] = 7
    np.testing.assert_allclose(familiarity.looks(picture), [255 * 23 / 46, 7, 0, 127.5, 0, 0, 0], rtol=0.02)
    picture[:, ::2, 1] = 17  # every other column
    assert familiarity.looks(picture)[6] == 10


def test_light_and_colours_have_limits() -> None:
    spec = replace(seeing_pusht.SPEC, cameras=CAMERAS)
    low, high = [10.0] * 3 + [0.0] * 4, [200.0] * 3 + [60.0] * 4
    eyes = CameraWatch(Limits.of(handshake(spec, {"camera_low": low * 2, "camera_high": high * 2})))
    grey = np.full((96, 96, 3), 100, np.uint8)
    eyes.see(Glance(np.zeros(2, np.float32), {"left": grey, "right": grey}))
    assert eyes.refusal() is None
    eyes.see(Glance(np.zeros(2, np.float32), {"left": grey, "right": grey // 20}))
    reason, sentence = eyes.refusal() or (None, "")
    assert reason is Reason.CAMERA_LIMIT
    assert "camera 'right': mean red is 5 of 255, its limits are 10 to 200; see whether it is covered" in sentence


def test_a_picture_that_stands_still_while_the_robot_moves() -> None:
    eyes, picture = watch(2.0, 9.0), np.zeros((96, 96, 3), np.uint8)
    for step in range(3):
        eyes.see(Glance(np.full(2, step, np.float32), {"left": picture.copy(), "right": picture + np.uint8(step)}))
        assert eyes.refusal() is None
    for _ in range(5):
        eyes.see(Glance(np.full(2, 2, np.float32), {"left": picture.copy(), "right": picture.copy()}))
    assert eyes.refusal() is None, "a robot that stands still sees the same"
    eyes.see(Glance(np.full(2, 3, np.float32), {"left": picture.copy(), "right": picture.copy()}))
    reason, sentence = eyes.refusal() or (None, "")
    assert reason is Reason.FROZEN_CAMERA
    assert "camera 'left' has shown the same picture for 3 control steps" in sentence
    eyes.see(Glance(np.full(2, 4, np.float32), {"left": picture + np.uint8(1), "right": picture.copy()}))
    assert eyes.refusal() is None


def test_a_plan_of_unfamiliar_pictures_is_not_executed() -> None:
    eyes = watch(5.0, 5.0)
    assert eyes.plan({"entropy": 9.0, "camera_left": 1.0, "camera_right": 0.2})
    assert not eyes.plan({"camera_left": 0.1, "camera_right": 1.25})
    reason, sentence = eyes.refusal() or (None, "")
    assert reason is Reason.UNFAMILIAR_PICTURE
    assert "camera 'right': its picture is unlike those of training, 1.25 times as far as allowed" in sentence
    assert not eyes.plan({"camera_left": np.nan})
    assert eyes.plan({}), "a policy without such numbers says nothing of its pictures"
    assert eyes.refusal() is None


# --- end to end: a served policy, a simulated robot, a camera that fails ----------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A policy whose guard was fitted to random motions of Push-T, like those that it makes."""
    actor = seeing_pusht.actor("chunk")
    guard = familiarity.fitted(seeing_pusht.demonstrations())
    with running(Served.of(actor, DIGEST, "seeing@champion", {"guard": guard})) as found:
        yield found


def played(server: Any, *written: str, recorder: Any = None) -> Drive:
    with connect(server.url, spec=seeing_pusht.SPEC) as policy:
        assert listed({}, LIMIT) == {}
        kept = recorder(policy.handshake) if recorder else None
        robot = SimulatedRobot(PushT(max_steps=STEPS, camera=True), policy, Faults.of(written), recorder=kept)
        return robot.play(4)


def test_a_camera_that_is_well_lets_the_robot_go_on(server: Any, tmp_path: Any) -> None:
    drive = played(server, recorder=lambda said: Recorder(tmp_path, said))
    assert (drive.steps, drive.stopped, dict(drive.reasons)) == (STEPS, "", {})
    share = np.load(tmp_path / "00001" / "signal" / "camera_image.npy")
    assert ((share > 0) & (share <= 1)).all()


def test_a_camera_that_goes_black_stops_the_robot(server: Any) -> None:
    drive = played(server, "black=1")
    assert drive.reasons == {"camera_limit": 3}
    assert drive.holds == 2
    assert "camera 'image': mean red is 0 of 255, its limits are" in drive.stopped


def test_pictures_that_the_server_finds_unfamiliar_stop_the_robot() -> None:
    """Light, colours and detail are those of training, and the thumbnails lie further away than is allowed."""
    actor = seeing_pusht.actor("chunk")
    guard = familiarity.fitted(seeing_pusht.demonstrations())
    guard["camera.image.most"] = guard["camera.image.distance"][:1] / 10
    with (
        running(Served.of(actor, DIGEST, "seeing@champion", {"guard": guard})) as strict,
        pytest.raises(ServingError, match="cannot start: camera 'image': its picture is unlike those of training"),
    ):
        played(strict)


def test_a_camera_that_freezes_stops_the_robot(server: Any) -> None:
    drive = played(server, "frozen=1")
    assert drive.reasons == {"frozen_camera": 3}
    assert "camera 'image' has shown the same picture for" in drive.stopped


def test_an_episode_does_not_start_with_a_covered_lens(server: Any) -> None:
    from vqbet.serving.player import ChunkPlayer

    black = {"state": np.array([250.0, 250.0]), "camera/image": np.zeros((96, 96, 3), np.uint8)}
    with connect(server.url, spec=seeing_pusht.SPEC) as policy:
        player = ChunkPlayer(policy)
        with pytest.raises(ServingError, match=r"the episode cannot start: camera 'image': mean red is 0 of 255"):
            player.start(black, seed=1)
        player.close()


def test_the_bundle_stage_fits_only_policies_that_see() -> None:
    """The guard of a policy of numbers is what it was."""
    from tests.support.synthetic import synthetic
    from vqbet.demos.windows import Windows
    from vqbet.models.spaces import Spaces
    from vqbet.policies import envelope
    from vqbet.policies.actor import Actor

    demos = synthetic(8)
    actor = Actor(demos.spec, untrained.planner(Spaces.fit(demos, ())), execute="first")
    found = envelope.component(actor, [demos], demos, Windows(demos, window=2, chunk=3))
    assert not [name for name in found if "camera" in name]
    seen = seeing_pusht.demonstrations()
    seeing = seeing_pusht.actor()
    found = envelope.component(seeing, [seen], seen, Windows(seen, window=seeing_pusht.T, chunk=seeing_pusht.H))
    assert {"camera.image.mean", "camera.image.whitening", "camera.image.most", "limit.camera_still"} <= found.keys()
