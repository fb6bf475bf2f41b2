"""Draws docs/scan.png, a scan over a track, by `python docs/scan_picture.py`."""

from pathlib import Path

import matplotlib
import numpy as np

from hotlap.sim.lidar import DeepRacerLidar, Lidar, RangeLidar, track_walls
from hotlap.track import load_track

matplotlib.use("Agg")
from matplotlib import pyplot

PLACE = 3.0
"""Arc length of the car [m]."""


def main() -> None:
    """Draw a racing LIDAR on the left, DeepRacer's on the right."""
    track = load_track("reinvent_like")
    s = np.array([PLACE, PLACE - 0.9, PLACE + 1.6])
    (car, behind, ahead), yaw = track.locate(s, [0.05, 0.15, -0.15]), track.stations.heading
    station = (s / track.stations.spacing).astype(int)
    boxes = np.array(
        [
            [*place, np.cos(yaw[k]), np.sin(yaw[k]), 0.16, 0.1, 0.2, 1]
            for place, k in zip((behind, ahead), station[1:], strict=True)
        ],
        np.float32,
    )
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), constrained_layout=True)
    for axis, settings in zip(axes, (RangeLidar(), DeepRacerLidar()), strict=True):
        lidar, heading = Lidar(settings, [track]), float(yaw[station[0]])
        distance = lidar.scan(car[:1], car[1:], np.array([heading]), np.zeros(1), boxes[None])[0]
        x = car[0] + settings.mount_forward * np.cos(heading)
        y = car[1] + settings.mount_forward * np.sin(heading)
        hit = distance < settings.range_max
        seen = np.where(hit, distance, 1.0)  # beams that meet nothing are drawn 1 m long
        ends = np.stack([x + seen * np.cos(heading + lidar.angles),
                         y + seen * np.sin(heading + lidar.angles)])  # fmt: skip
        for wall in track_walls(track):
            axis.plot(*wall.T, color="0.2" if settings.walls else "0.8", linewidth=1)
        for k in range(settings.beams):
            color, width = ("tab:red", 0.6) if hit[k] else ("0.85", 0.5)
            axis.plot([x, ends[0, k]], [y, ends[1, k]], color=color, linewidth=width)
        axis.plot(*ends[:, hit], ".", color="tab:red", markersize=4)
        for box in boxes:
            corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1], [1, 1]]) * box[4:6]
            turn = np.array([[box[2], box[3]], [-box[3], box[2]]])
            axis.fill(*(box[:2] + corners @ turn).T, color="tab:blue")
        axis.plot(x, y, marker=(3, 0, np.degrees(heading) - 90), color="k", markersize=9)
        axis.set_title(f'kind = "{settings.kind}"', fontsize=10)
        axis.set_aspect("equal")
        axis.set(xlim=(x - 2.2, x + 3.2), ylim=(y - 1.4, y + 3.0), xticks=[], yticks=[])
    figure.savefig(Path(__file__).with_name("scan.png"), dpi=110)


if __name__ == "__main__":
    main()
