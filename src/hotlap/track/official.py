"""Official tracks of the DeepRacer league: their ids and names, and where a copy comes from.

Their arrays are not ours to ship: users add copies of their own, by `hotlap tracks add`.

Source: ids and variants: aws-deepracer-community/deepracer-simapp 6.0.5, the routes; names:
aws-solutions/deepracer-on-aws 1.2.5, tracks.json; ids of the races alone:
aws-deepracer-community/deepracer-race-data, leaderboards.csv. Read for the facts.
"""

from __future__ import annotations

import re

__all__ = ["OFFICIAL", "official_hint", "official_id"]

_TITLES: dict[str, tuple[str, str]] = {
    "2022_april_open": ("Ace Speedway", "cw ccw"),
    "2022_april_pro": ("Ace Super Speedway", "cw ccw"),
    "2022_august_open": ("Jochem Turnpike", "cw ccw"),
    "2022_august_pro": ("Jochem Highway", "cw ccw"),
    "2022_july_open": ("DBro Raceway", ""),
    "2022_july_pro": ("DBro Super Raceway", "cw ccw"),
    "2022_june_open": ("BreadCentric Loop", "cw ccw"),
    "2022_june_pro": ("BreadCentric Speedway", "cw ccw"),
    "2022_march_open": ("Rogue Circuit", "cw ccw"),
    "2022_march_pro": ("Rogue Raceway", "cw ccw"),
    "2022_may_open": ("Ross Raceway", "cw ccw"),
    "2022_may_pro": ("Ross Super Speedway", "cw ccw"),
    "2022_october_open": ("Jennens Family Speedway", "cw ccw"),
    "2022_october_pro": ("Jennens Super Speedway", "cw ccw"),
    "2022_reinvent_champ_ccw": ("2022 re:Invent Championship", "cw"),
    "2022_september_open": ("Roger Ring", "cw ccw"),
    "2022_september_pro": ("Roger Super Raceway", "cw ccw"),
    "2022_summit_speedway": ("RL Speedway", "cw ccw"),
    "2022_summit_speedway_mini": ("", ""),
    "2024_reinvent_champ_ccw": ("Forever Raceway", "cw"),
    "Albert": ("Yun Speedway", ""),
    "AmericasGeneratedInclStart": ("Baadal Track", ""),
    "Aragon": ("Stratus Loop", ""),
    "arctic_open": ("Hot Rod Speedway", "cw ccw"),
    "arctic_pro": ("Hot Rod Super Speedway", "cw ccw"),
    "Austin": ("American Hills Speedway", ""),
    "AWS_track": ("", ""),
    "Belille": ("Cumulo Turnpike", ""),
    "Bowtie_track": ("Bowtie Track", ""),
    "caecer_gp": ("Vivalas Speedway", ""),
    "caecer_loop": ("Vivalas Loop", ""),
    "Canada_Training": ("Toronto Turnpike Training", ""),
    "China_track": ("Shanghai Sudu Training", ""),
    "dubai_open": ("Baja Turnpike", "cw ccw"),
    "dubai_pro": ("Baja Highway", ""),
    "FS_June2020": ("Fumiaki Loop", ""),
    "hamption_open": ("Kuei Raceway", ""),
    "hamption_pro": ("Kuei Super Raceway", ""),
    "July_2020": ("Roger Raceway", ""),
    "jyllandsringen_open": ("Cosmic Loop", "cw ccw"),
    "jyllandsringen_pro": ("Cosmic Circuit", "cw ccw"),
    "LGSWide": ("SOLA Speedway", ""),
    "Mexico_track": ("Cumulo Carrera Training", ""),
    "Monaco": ("European Seaside Circuit", ""),
    "Monaco_building": ("European Seaside Circuit - Buildings", ""),
    "morgan_open": ("Playa Raceway", ""),
    "morgan_pro": ("Playa Super Raceway", ""),
    "New_York_Track": ("Empire City Training", ""),
    "Oval_track": ("Oval Track", ""),
    "penbay_open": ("Po-Chun Speedway", "cw ccw"),
    "penbay_pro": ("Po-Chun Super Speedway", "cw ccw"),
    "red_star_open": ("Expedition Loop", ""),
    "red_star_pro": ("Expedition Super Loop", "cw ccw"),
    "reInvent2019_track": ("Smile Speedway", "cw ccw"),
    "reInvent2019_wide": ("A to Z Speedway", "cw ccw"),
    "reInvent2019_wide_mirrored": ("", ""),
    "reinvent_base": ("re:Invent 2018", ""),
    "reinvent_carpet": ("", ""),
    "reinvent_concrete": ("", ""),
    "reinvent_wood": ("", ""),
    "Singapore": ("Asia Pacific Bay Loop", ""),
    "Singapore_building": ("Asia Pacific Bay Loop - Buildings", ""),
    "Singapore_f1": ("", ""),
    "Spain_track": ("Circuit de Barcelona-Catalunya", ""),
    "Spain_track_f1": ("", ""),
    "Straight_track": ("", ""),
    "thunder_hill_open": ("Lars Loop", ""),
    "thunder_hill_pro": ("Lars Circuit", "cw ccw"),
    "Tokyo_Training_track": ("Kumo Torakku Training", ""),
    "Vegas_track": ("AWS Summit Raceway", ""),
    "Virtual_May19_Train_track": ("London Loop Training", ""),
}
"""By id: the name that the console showed, where it had one, and which variants are files of their
own: the same course driven clockwise or counter-clockwise, with its own origin and waypoints."""
_RACES = (
    "Canada_Race",
    "ChinaAlt_track",
    "H_track",
    "MexicoAlt_track",
    "New_YorkAlt_Track",
    "Tokyo_Racing_track",
    "Virtual_Competition_1",
    "Virtual_May19_Comp_track",
)
"""Tracks that were raced on, and that no simulator application had."""


def _variant(name: str, way: str) -> str:
    return f"{name.removesuffix('_ccw')}_{way}"


OFFICIAL: dict[str, str] = {
    **{name: title for name, (title, _) in _TITLES.items()},
    **{
        _variant(name, way): title
        for name, (title, ways) in _TITLES.items()
        for way in ways.split()
    },
    **dict.fromkeys(_RACES, ""),
}
"""By id, of every file that there is: the name that the console showed, or nothing."""


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


_KNOWN = {_plain(title): name for name, (title, _) in _TITLES.items() if title}
_KNOWN |= {_plain(name.removesuffix("_ccw")): name for name in _TITLES}
_KNOWN |= {_plain(name): name for name in OFFICIAL}


def official_id(word: str) -> str | None:
    """Return the id of an official track from its id or its name, in any case and punctuation.

    >>> official_id("re:Invent 2018")
    'reinvent_base'
    >>> official_id("oval_track.npy")
    'Oval_track'
    """
    return _KNOWN.get(_plain(word.removesuffix(".npy")))


def official_hint(name: str) -> str:
    """Say which official track an id is, and how to get it."""
    title = f" ({OFFICIAL[name]})" if OFFICIAL[name] else ""
    if name in _RACES:
        where = "no simulator application had it; where you have its .npy file"
    else:
        where = (
            "hotlap ships none of these; with a checkout of deepracer-simapp or deepracer-race-data"
        )
    return (
        f"{name!r} is the official track {name}{title}: {where}, add your own copy with "
        "`hotlap tracks add CHECKOUT`"
    )
