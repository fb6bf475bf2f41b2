"""Settings: layers, words, kinds, and what a user reads who made a mistake."""

import tomllib
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from hotlap.config import Settings, overrides, read_toml, resolve, to_toml
from hotlap.env import EnvSettings
from hotlap.errors import ConfigError
from hotlap.plan import TrainConfig
from hotlap.tasks.actions import GridActions
from hotlap.tasks.rewards import FileReward, FunctionReward, ProgressReward, RacingReward
from hotlap.tasks.rules import RulesSettings


class Steam(Settings):
    kind: Literal["steam"] = "steam"
    pressure: float = 8.0
    fine: float = 1.0


class Diesel(Settings):
    kind: Literal["diesel"] = "diesel"
    litres: float = 2.0
    fine: float = 1.0


class Wheels(Settings):
    count: int = Field(4, gt=0)
    names: tuple[str, ...] = ()


class Cart(Settings):
    name: str = "cart"
    engine: Annotated[Steam | Diesel, Field(discriminator="kind")] = Steam()
    wheels: Wheels = Wheels()


def complaint(*layers, model=TrainConfig):
    with pytest.raises(ConfigError) as caught:
        resolve(model, *layers)
    return str(caught.value)


# --- words ---


def test_a_word_is_toml_and_what_is_not_toml_is_text():
    words = [
        "a.rate=1e-3", "a.count=5", "a.on=true", "track=oval", "list=[[0, 1.5], [10, 1]]",
        "quoted='5'", "empty=", "equation=x=y", "path=my#reward.py",
    ]  # fmt: skip

    assert overrides(words) == {
        "a.rate": 0.001,
        "a.count": 5,
        "a.on": True,
        "track": "oval",
        "list": [[0, 1.5], [10, 1]],
        "quoted": "5",
        "empty": "",
        "equation": "x=y",
        "path": "my#reward.py",
    }


def test_the_last_of_two_equal_words_counts():
    assert overrides(["seed=1", "seed=2"]) == {"seed": 2}


@pytest.mark.parametrize("word", ["oval", "=3", "", "track"])
def test_a_word_without_name_or_value_is_refused(word):
    with pytest.raises(ConfigError, match=r"is not a setting: write section\.field=value"):
        overrides(["seed=1", word])


# --- meanings ---


class Vehicle(Settings):
    mass: float = 1.0
    """How heavy
    it is."""
    name: str = ""
    wheels: Wheels = Wheels()
    """What it stands on."""


class Lorry(Vehicle):
    load: float = 0.0
    """What it carries."""
    mass: float = 9.0
    """Without its load."""


def test_the_string_under_a_field_is_its_meaning_also_in_what_inherits_it():
    assert Vehicle.meanings() == {"mass": "How heavy\nit is.", "wheels": "What it stands on."}
    assert Lorry.meanings() == {
        "mass": "Without its load.",
        "wheels": "What it stands on.",
        "load": "What it carries.",
    }


def test_the_schema_tells_the_meanings():
    fields = Lorry.model_json_schema()["properties"]

    assert fields["mass"]["description"] == "Without its load."
    assert fields["wheels"]["description"] == "What it stands on."
    assert "description" not in fields["name"]


# --- layers ---


def test_later_layers_win_and_leave_the_rest():
    cart = resolve(
        Cart,
        {"name": "first", "wheels": {"count": 6, "names": ["a"]}},
        {"wheels.count": 8},
        {"name": "last"},
    )

    assert cart == Cart(name="last", wheels=Wheels(count=8, names=("a",)))


def test_nested_dotted_and_mixed_names_say_the_same():
    nested = resolve(Cart, {"engine": {"kind": "diesel", "litres": 3}, "wheels": {"count": 2}})
    dotted = resolve(Cart, {"engine.kind": "diesel", "engine.litres": 3, "wheels.count": 2})
    mixed = resolve(Cart, {"engine": {"kind": "diesel"}, "engine.litres": 3, "wheels.count": 2})

    assert nested == dotted == mixed == Cart(engine=Diesel(litres=3), wheels=Wheels(count=2))


def test_a_section_may_be_wrongas_groupand_changed_by_later_layers():
    config = resolve(EnvSettings, {"rules": RulesSettings(laps=2)}, {"rules.time_limit": 9})

    assert config.rules == RulesSettings(laps=2, time_limit=9)


def test_the_layers_themselves_stay_as_they_were():
    first, second = {"wheels": {"count": 6}}, {"wheels.count": 8}

    resolve(Cart, first, second)

    assert first == {"wheels": {"count": 6}}


# --- kinds ---


def test_no_value_of_one_kind_survives_the_change_to_another():
    # `fine` is a field of both: leaking it would pass unnoticed
    there = resolve(Cart, {"engine": {"kind": "diesel", "fine": 7.0}}, {"engine.kind": "steam"})
    back = resolve(Cart, {"engine.fine": 7.0}, {"engine": "diesel"})

    assert there.engine == Steam(fine=1.0)
    assert back.engine == Diesel(fine=1.0)


def test_the_same_kind_again_keeps_what_was_given():
    cart = resolve(Cart, {"engine.pressure": 3.0}, {"engine.kind": "steam"}, {"engine.fine": 2.0})

    assert cart.engine == Steam(pressure=3.0, fine=2.0)


@pytest.mark.parametrize(
    "words",
    [
        ["reward=racing", "reward.off_track_fine=2"],
        ["reward.off_track_fine=2", "reward=racing"],
        ["reward.off_track_fine=2", "reward.kind=racing"],
    ],
)
def test_the_order_of_words_on_one_line_does_not_matter(words):
    assert resolve(TrainConfig, overrides(words)).reward == RacingReward(off_track_fine=2)


def test_a_toml_table_may_name_its_kind_last():
    config = resolve(TrainConfig, {"reward": {"jerk_fine": 0.5, "kind": "racing"}})

    assert config.reward == RacingReward(jerk_fine=0.5)


@pytest.mark.parametrize(
    "layers",
    [[{"start.offset": 0.3}, {"start.kind": "line"}], [{"start.offset": 0.3, "start": "line"}]],
)
def test_a_kind_that_is_no_variant_keeps_the_other_fields_of_its_section(layers):
    start = resolve(TrainConfig, *layers).start

    assert (start.kind, start.offset) == ("line", 0.3)


@pytest.mark.parametrize(
    ("word", "section", "expected"),
    [
        ("reward=my/reward.py", "reward", FileReward(path="my/reward.py")),
        ("reward=rewards:fast", "reward", FunctionReward(function="rewards:fast")),
        ("reward=my.py:fast", "reward", FunctionReward(function="my.py:fast")),
        ("reward=progress", "reward", ProgressReward()),
        ("actions=grid", "actions", GridActions()),
    ],
)
def test_a_section_with_kinds_understands_a_word(word, section, expected):
    assert getattr(resolve(TrainConfig, overrides([word])), section) == expected


# --- mistakes ---


def test_every_mistake_gets_a_line_of_its_own_in_the_users_spelling():
    text = complaint(
        {"trak": "oval", "rules.laps": -1, "rules": {"tim_limit": 3}, "reward": "fast", "seed": "x"}
    )

    lines = sorted(text.splitlines())
    assert len(lines) == 5
    assert lines[0] == (
        'reward.kind: choose from progress, centre, racing, limit, file, function (got "fast")'
    )
    assert lines[1] == "rules.laps: should be greater than or equal to 0 (got -1)"
    assert lines[2].startswith(
        "rules.tim_limit: unknown setting (did you mean time_limit?); allowed here: off_track, "
    )
    assert lines[3].startswith("seed: should be a valid integer")
    assert lines[4].startswith("trak: unknown setting (did you mean track?); allowed here: track, ")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"trak.x": 1}, "trak.x: unknown setting (did you mean track?); known: track, vehicle"),
        ({"track.x": 1}, "track.x: track is a single value, not a section"),
        ({"xyz": 1}, "xyz: unknown setting; allowed here: track"),
        ({"": 1}, ": unknown setting; allowed here"),
        ({"rules.": 1}, "rules.: unknown setting; allowed here: off_track"),
        ({"rules": 5}, "rules: should be a valid dictionary"),
        ({"observation": "camera"}, "observation: should be a valid dictionary"),
        (
            {"observation": "camera", "observation.actor": ["camera"]},
            'observation: should be a valid dictionary or instance of ObservationSettings (got',
        ),
        ({"reward": 5, "reward.off_track_fine": 3}, "reward: should be a valid dictionary"),
        ({"reward": {"kind": ["a"]}}, 'reward.kind: choose from progress, centre, racing, limit'),
        ({"reward": "nothing.here:"}, "reward.function: String should match pattern"),
        ({"reward.kind": "file"}, "reward.path: is missing; give it a value"),
        ({"reward.path": "a.py"}, "reward.path: unknown setting; allowed here: kind, off_track"),
        (
            {"algorithm": "a3c"},
            "algorithm.kind: choose from ppo, ddpg, td3, sac, qr_sac, rdpg, dqn, pqn, distill",
        ),
        ({"observation.state.lookahed": 1}, "observation.state.lookahed: unknown setting (did you"),
        ({"observation.state.lookahead": [1, -2]}, "observation.state.lookahead.1: should be gre"),
        ({"look.road": [1, 2, 300]}, "look.road.2: should be less than or equal to 255 (got 300)"),
        ({"control_rate": float("nan")}, "control_rate: should be"),
        ({"rules.time_limit": float("inf")}, "rules.time_limit: should be a finite number"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(wrong, expected):
    text = complaint(wrong)

    assert text.startswith(expected)
    assert "\n" not in text


def test_a_wrong_entry_of_a_list_is_named_by_its_place_and_nothing_else_is_said():
    text = complaint({"actions": {"kind": "list", "list": [["left", 1], [0, -3]]}})

    first, second = text.splitlines()
    assert first.startswith("actions.list.0.0: should be a valid number")
    assert second == "actions.list.1.1: should be greater than or equal to 0 (got -3)"


def test_an_empty_list_of_actions_is_told():
    assert complaint({"actions": {"kind": "list", "list": []}}).startswith("actions.list: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", st.integers(max_value=-1)),
        ("control_rate", st.floats(max_value=0, allow_infinity=False)),
        ("start.offset", st.floats(min_value=1, allow_infinity=False)),
        ("rules.off_track", st.text()),
        ("nothing", st.none() | st.text()),
    ],
)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_value_outside_of_its_range_is_refused_under_its_name(name, value, data):
    assert complaint({name: data.draw(value)}).startswith(f"{name}: ")


# --- files ---


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**62),
    rate=st.floats(1e-3, 1e3),
    fine=st.floats(0, 1e300),
    offset=st.floats(0, 1, exclude_max=True),
    road=st.tuples(*[st.integers(0, 255)] * 3),
    lookahead=st.lists(st.floats(1e-6, 1e6), max_size=12),
    pairs=st.lists(st.tuples(st.floats(-60, 60), st.floats(0, 100)), min_size=1, max_size=9),
    track=st.text(),
)
def test_what_is_written_is_read_back_the_same(
    seed, rate, fine, offset, road, lookahead, pairs, track
):
    config = resolve(
        TrainConfig,
        {
            "seed": seed,
            "track": track,
            "control_rate": rate,
            "reward": {"kind": "racing", "jerk_fine": fine},
            "start.offset": offset,
            "look.road": road,
            "observation.state.lookahead": lookahead,
            "actions": {"kind": "list", "list": pairs},
        },
    )

    again = resolve(TrainConfig, tomllib.loads(to_toml(config)))

    assert again == config


def test_the_written_file_is_complete(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(TrainConfig()), encoding="utf-8")

    tree = read_toml(path)

    def names(group):
        for name in type(group).model_fields:
            value = getattr(group, name)
            if isinstance(value, Settings):
                yield from (f"{name}.{below}" for below in names(value))
            elif value is not None:
                yield name

    def written(branch):
        for name, value in branch.items():
            if isinstance(value, dict):
                yield from (f"{name}.{below}" for below in written(value))
            else:
                yield name

    assert sorted(written(tree)) == sorted(names(TrainConfig()))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"seed = 1\ntrack = \noval", r"config\.toml: not valid TOML: .*line 2"),
        (b"seed = 1\nseed = 2\n", r"config\.toml: not valid TOML: .*line 2"),
        (b"track = '\xff\xfe'", r"config\.toml: cannot be read \(.*utf-8"),
        (b"\x00", r"config\.toml: not valid TOML"),
    ],
)
def test_a_broken_file_is_named_with_the_place_in_it(tmp_path, content, expected):
    path = tmp_path / "config.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=expected):
        read_toml(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"cannot be read \(.*directory"):
        read_toml(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 3\n")

    assert read_toml(path) == {"seed": 3}


def test_groupare_frozen_and_closed():
    with pytest.raises(ValueError, match="frozen"):
        Cart().name = "other"
    with pytest.raises(ValueError, match="extra"):
        Cart(colour="red")
