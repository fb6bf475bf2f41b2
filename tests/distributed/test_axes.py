"""Which settings take several values, as people write it."""

import pytest

from hotlap.config import overrides
from hotlap.distributed.axes import Choices, Range, combinations, read_axes, words
from hotlap.errors import ConfigError


def axes(*given):
    return read_axes(given)[1]


def test_a_comma_parts_values_and_brackets_hold_them_together():
    assert axes("track=[oval,hard],oval")[0].values == ("oval,hard", "oval")
    assert axes('track="oval,hard",oval')[0].values == ("oval,hard", "oval")
    assert axes("traffic.bot_speed=[0.5,1],[1,1]")[0].values == ([0.5, 1], [1, 1])
    assert axes("algorithm=ppo,sac", "seed=3,5") == (
        Choices("algorithm", ("ppo", "sac")),
        Choices("seed", (3, 5)),
    )


def test_one_value_is_no_axis():
    fixed, found = read_axes(["train.seconds=30", "track=[oval,hard]", "seed=1,2"])

    assert fixed == {"train.seconds": 30, "track": "oval,hard"}
    assert [axis.name for axis in found] == ["seed"]


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("1e-4..1e-2", Range("x", 1e-4, 1e-2)),
        ("1e-4..1e-2:log", Range("x", 1e-4, 1e-2, log=True)),
        ("1e-4..1e-2 log", Range("x", 1e-4, 1e-2, log=True)),
        ("-3..4", Range("x", -3, 4)),
        (".5..1.", Range("x", 0.5, 1.0)),
    ],
)
def test_two_dots_make_a_range(text, axis):
    (found,) = axes(f"x={text}")

    assert found == axis
    assert found.whole == (text == "-3..4")


def test_a_file_with_two_dots_is_no_range():
    assert read_axes(["reward=../mine.py"])[0] == {"reward": "../mine.py"}
    assert axes("reward=../a.py,../b.py")[0].values == ("../a.py", "../b.py")


def test_a_grid_spells_a_range_of_whole_numbers_with_both_ends():
    assert Range("seed", 2, 5).spelled() == Choices("seed", (2, 3, 4, 5))

    with pytest.raises(ConfigError, match=r"seed: 0 to 100 are 101 values.*--search random"):
        Range("seed", 0, 100).spelled()
    with pytest.raises(ConfigError, match=r"x: a grid has no numbers between 0\.1 and 0\.2"):
        Range("x", 0.1, 0.2).spelled()


def test_what_leaves_a_range_comes_back_to_its_end():
    assert Range("x", 1e-4, 1e-2).clip(0.012) == 1e-2
    assert Range("n", 2, 9).clip(4.6) == 5
    assert isinstance(Range("n", 2, 9).clip(4.6), int)


def test_every_combination_comes_once_and_the_last_axis_changes_first():
    found = list(combinations([Choices("a", (1, 2)), Choices("b", ("x", "y"))]))

    assert found == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


def test_words_are_read_back_as_the_same_values():
    values = {
        "track": "oval,hard",
        "x": 1e-05,
        "reward.compiled": False,
        "list": [0.5, 1],
        "name": '3 "quoted" ü',
    }

    assert overrides(words(values)) == values


def test_in_python_a_list_is_an_axis_and_a_tuple_is_one_value():
    fixed, found = read_axes(
        {"seed": range(3), "track": ["oval", "oval,hard"], "traffic.bot_speed": (0.5, 1), "x": 2}
    )

    assert fixed == {"traffic.bot_speed": [0.5, 1], "x": 2}
    assert found == (Choices("seed", (0, 1, 2)), Choices("track", ("oval", "oval,hard")))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["seed"], "'seed' is not a setting"),
        (["a=1,,2"], "a: a value is missing beside a comma"),
        (["a="], "a: a value is missing"),
        (["a=1,2,1"], "a: 1 comes twice"),
        (["a=[1,2"], "a: a bracket is opened and not closed"),
        (['a="x,y'], 'a: " is opened and not closed'),
        (["a=2..1"], "a: write the lower end of a range first"),
        (["a=0..1:log"], "a: 0 has no logarithm"),
        (["a=1..2:lin"], "a: after a range stands :log or nothing"),
        (["a=1,2", "a=3"], "a: is given twice"),
    ],
)
def test_a_mistake_is_said_in_words(given, said):
    with pytest.raises(ConfigError, match=said.replace('"', "[\"']")):
        read_axes(given)


def test_all_mistakes_are_said_at_once():
    with pytest.raises(ConfigError) as caught:
        read_axes(["a=1,1", "b=2..1"])

    assert [line[:2] for line in str(caught.value).splitlines()] == ["a:", "b:"]
