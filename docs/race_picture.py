"""Draws docs/images/race.png, a moment of a race: `python docs/race_picture.py RUN RUN SECOND`."""

import sys
from itertools import islice
from pathlib import Path

from PIL import Image

from hotlap.racing import film as race_film
from hotlap.racing.race import race


def main() -> None:
    """Race the runs that are named, and keep the frame of a second of the first race."""
    words = sys.argv[1:]
    second = float(words.pop()) if not Path(words[-1]).is_dir() else 6.0
    standings = race(words, laps=2, trials=len(words))
    assert standings.course is not None
    frames = race_film._frames(
        standings.course,
        standings.traces[0],
        [racer.name for racer in standings.racers],
        standings.laps,
        15,
        "",
    )
    frame = next(islice(frames, round(15 * second), None))
    Image.fromarray(frame).save(Path(__file__).parent / "images" / "race.png", optimize=True)


if __name__ == "__main__":
    main()
