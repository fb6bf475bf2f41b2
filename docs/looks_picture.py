"""Draws docs/looks.png, what a camera makes of one place in every look, by this script."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hotlap.sim.camera import Camera, CameraSettings
from hotlap.sim.look import AirsimLook, Look, RobotiniLook
from hotlap.sim.relief import depth_picture, segmentation_picture
from hotlap.track import Track, load_track

PLACE = 3.0
"""Arc length of the car [m]."""
SIZE = {"width": 240, "height": 180}
STREET = 10
"""AirSim's look is for a street: a track so many times as large."""
LOOKS = {
    "look=deepracer": Look(),
    "look.wall_height=0.2": Look(wall_height=0.2),
    "wear, light and shade": Look(wear=0.6, light=0.5, shade=0.5),
    "look=robotini": RobotiniLook(),
    "look=airsim (a street)": AirsimLook(),
}
COLUMNS = ("camera, rgb", "camera, grey", "depth", "segmentation")
HEAD, GAP, INK = 20, 4, (30, 30, 30)


def views(look: Look, large: float) -> list[np.ndarray]:
    """Draw an obstacle and a car before a car, by every image sensor, (H, W, 3) each."""
    track = load_track("reinvent_like")
    rows = np.hstack([track.centre, track.inner, track.outer]) * large
    track = Track.from_waypoints(rows, name="place")
    s = large * np.array([PLACE, PLACE + 0.8, PLACE + 1.6])
    (car, near, far), line = track.locate(s, large * np.array([0.05, -0.15, 0.12])), track.stations
    yaw = line.heading[(s / line.spacing).astype(int)]
    boxes = np.array(
        [
            [*place, np.cos(turn), np.sin(turn), *(large * np.array([0.1, 0.07, 0.14])), kind]
            for place, turn, kind in ((near, yaw[1] + 0.4, 0), (far, yaw[2], 1))
        ],
        np.float32,
    )
    call = *car[:, None], yaw[:1], np.zeros(1), np.zeros(1)
    mounting = {"mount_height": 0.1303 * large, "mount_forward": 0.1453 * large}
    images = []
    for color in ("rgb", "grey"):
        settings = CameraSettings.model_validate({"color": color, **SIZE, **mounting})
        camera = Camera(settings, [track], [look])
        images.append(camera.render(*call, boxes=boxes[None])[0])
    reach = 4 * large
    depth = camera.depth(*call, boxes=boxes[None], range_max=reach)
    images.append(depth_picture(depth, reach)[0])
    images.append(segmentation_picture(camera.segmentation(*call, boxes=boxes[None]))[0])
    return [np.broadcast_to(image, (*image.shape[:2], 3)) for image in images]


def main() -> None:
    """Draw a row for each look, a column for each sensor."""
    wide, high = SIZE["width"] + GAP, SIZE["height"] + HEAD + GAP
    sheet = Image.new("RGB", (wide * len(COLUMNS) + GAP, high * len(LOOKS) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for k, (name, look) in enumerate(LOOKS.items()):
        top = GAP + k * high
        for column, image in enumerate(views(look, STREET if "street" in name else 1)):
            left = GAP + column * wide
            sheet.paste(Image.fromarray(np.ascontiguousarray(image)), (left, top + HEAD))
            if column:
                pen.text((left, top + 2), COLUMNS[column], INK, font)
        pen.text((GAP, top + 2), f"{name}: {COLUMNS[0]}", INK, font)
    sheet.quantize(200).save(Path(__file__).with_name("looks.png"))


if __name__ == "__main__":
    main()
