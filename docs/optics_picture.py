"""Draws docs/optics.png, one view by many lenses and sensors: `python docs/optics_picture.py`."""

from pathlib import Path

import matplotlib
import numpy as np

from hotlap.sim.bands import ColorBandsSettings, color_bands
from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.lens import Mounting
from hotlap.sim.look import Look
from hotlap.sim.optics import Optics, OpticsRanges, OpticsSettings
from hotlap.sim.relief import depth_picture, segmentation_picture
from hotlap.track import load_track

matplotlib.use("Agg")
from matplotlib import pyplot

PLACE = 1.2
"""Arc length of the car [m]."""
REACH = 4.0
"""What is black in a picture of depth [m]."""
FLAWS = {
    "as it is": {},
    "exposure = 1.8": {"exposure": 1.8},
    "gamma = 1.4": {"gamma": 1.4},
    "contrast = 0.6": {"contrast": 0.6},
    "white_balance = 1.15,1,0.85": {"white_balance": (1.15, 1.0, 0.85)},
    "vignetting = 0.6": {"vignetting": 0.6},
    "blur = 1.2": {"blur": 1.2},
    "shutter = 0.02, at 3 rad/s": {"shutter": 0.02},
    "noise = 12": {"noise": 12.0},
    "quality = 20": {"quality": 20},
}
LENSES = {
    "distortion = -0.18,0.02": {"distortion": (-0.18, 0.02), "fov_deg": 90},
    "distortion = 0.3,0": {"distortion": (0.3, 0.0)},
    'lens = "fisheye", 120 degrees': {"lens": "fisheye", "fov_deg": 120},
    'lens = "fisheye", 180 degrees': {"lens": "fisheye", "fov_deg": 180},
    "roll_deg = 8, yaw_deg = -10": {"roll_deg": 8, "yaw_deg": -10},
}
ROBOTINI = {
    "width": 128, "height": 80, "fov_deg": 71.95, "pitch_deg": 11, "mount_height": 0.068,
}  # fmt: skip


def main() -> None:
    """Draw flaws, lenses and colour bands."""
    track = load_track("reinvent_like")
    station = int(PLACE / track.stations.spacing)
    yaw = float(track.stations.heading[station])
    car = track.locate([PLACE], [0.05])[0]
    box = track.locate([PLACE + 1.0], [0.0])[0]
    boxes = np.array([[[*box, np.cos(yaw), np.sin(yaw), 0.16, 0.1, 0.2, 1]]], np.float32)
    zero = np.zeros(1, np.int32)

    call = car[:1], car[1:], np.array([yaw]), zero, zero

    def see(look: Look = Look(), **given: object) -> Camera:  # noqa: B008
        settings = CameraSettings.model_validate({"color": "rgb", **given})
        return Camera(settings, [track], [look], mountings=(Mounting(),))

    def draw(look: Look = Look(), **given: object) -> np.ndarray:  # noqa: B008
        return see(look, **given).render(*call, boxes=boxes)

    figure, axes = pyplot.subplots(6, 5, figsize=(12, 11.6), constrained_layout=True)
    cells = iter(axes.flat)
    for title, given in FLAWS.items():
        picture = draw()
        Optics(OpticsSettings(**given), OpticsRanges(), 1, picture.shape[1:], focal=126).develop(
            picture, zero, seed=0, ids=zero, episode=zero, steps=zero, yaw_rate=np.full(1, 3.0)
        )
        show(next(cells), picture[0], title)
    for title, given in LENSES.items():
        show(next(cells), draw(**given)[0], title)
    for given in LENSES.values():
        depth = see(**given).depth(*call, boxes=boxes, range_max=REACH)
        show(next(cells), depth_picture(depth, REACH)[0], "depth")
    for given in LENSES.values():
        kind = see(**given).segmentation(*call, boxes=boxes)
        show(next(cells), segmentation_picture(kind)[0], "segmentation")
    dark = (40, 40, 40)
    look = Look(
        road=(48, 97, 159), border=(26, 174, 142), border_width=0.15, ground=(221, 69, 103),
        dash_width=0, sky_top=dark, sky_horizon=dark,
    )  # fmt: skip
    picture = draw(look, **ROBOTINI)
    bands = color_bands(picture, ColorBandsSettings())[0]
    below = picture[0, 20:].copy()
    pure = np.where((below == below.max(-1, keepdims=True)) & (below > 100), 255, 0)
    show(next(cells), picture[0], "a floor of three colours")
    show(next(cells), pure.astype(np.uint8), "pure colours, the top cut off")
    show(next(cells), bands[None, :4], "color_bands: columns")
    show(next(cells), bands[4:, None], "color_bands: rows")
    next(cells).axis("off")
    figure.savefig(Path(__file__).with_name("optics.png"), dpi=100)


def show(axis: object, picture: np.ndarray, title: str) -> None:
    """Put a picture into its cell."""
    axis.imshow(picture, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=9)
    axis.set(xticks=[], yticks=[])


if __name__ == "__main__":
    main()
