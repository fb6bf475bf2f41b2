"""Trainings side by side: one that fails stops no other, and none outlives who started it."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import hotlap
from drivers import command, saved
from hotlap import fleet, plot
from hotlap.errors import ConfigError, RunError
from hotlap.fleet import Fleet, train_fleet
from hotlap.population import Population
from hotlap.runs import Run

# Stands for `hotlap`: its words are what it does, and where.
PLAY = """
import json, os, signal, sys, time
what, run = sys.argv[1:]
os.makedirs(run, exist_ok=True)
def log(name, **row):
    with open(f"{run}/{name}.jsonl", "a") as file:
        file.write(json.dumps(row) + "\\n")
def stop(number, frame):
    log("events", kind="asked", number=number)
    if what != "deaf":
        sys.exit(128 + number)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
log("events", kind="began", at=time.monotonic(), threads=os.environ["HOTLAP_THREADS"])
log("metrics", iteration=1, steps=5000, seconds=1.0, reward=2.5)
log("events", kind="clean_laps", seconds=6.25, laps=3, steps=5000)
while what in ("stay", "deaf"):
    time.sleep(0.02)
if what == "fail":
    print("hotlap: the disk is full", file=sys.stderr)
    sys.exit(1)
if what == "vanish":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "mutter":
    print("oh", file=sys.stderr)
    sys.exit(3)
time.sleep(0.3)
log("events", kind="ended", at=time.monotonic())
"""
PROGRAM = (sys.executable, "-S", "-c", PLAY)


@pytest.fixture
def play(tmp_path, monkeypatch, capsys):
    """Let a fleet do something, a word a seed; return what came of it and what was said."""

    def run(*whats, cores=4):
        monkeypatch.setattr(fleet, "available", lambda: cores)
        population = Population.create(tmp_path / "pop", "", range(len(whats)))
        words = {seed: [what, str(population.place(seed))] for seed, what in enumerate(whats)}
        made = train_fleet(
            population, words, budget=(None, 10_000), quiet=False, plain=True, program=PROGRAM
        )
        return *made, capsys.readouterr().err

    return run


def events(population, seed, kind):
    lines = (population.place(seed) / "events.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def later(seconds, *actions):
    def act():
        for action in actions:
            time.sleep(seconds)
            action()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_as_many_at_once_as_there_are_cores_and_each_its_share(play):
    population, number, said = play("work", "work", "work", cores=2)

    began = [events(population, seed, "began")[0] for seed in range(3)]
    ended = sorted(events(population, seed, "ended")[0]["at"] for seed in range(3))
    assert (number, dict(population.failures)) == (0, {})
    assert [one["threads"] for one in began] == ["1", "1", "1"]
    assert max(began[0]["at"], began[1]["at"]) < ended[0]  # two side by side
    assert began[2]["at"] > ended[0]  # the third when one has ended
    assert "3 seeds, 2 at once with 1 thread each" in said
    assert "seed2: 3 clean laps in a row from every start after 6.2 s, 5,000 steps" in said
    assert not list(population.path.glob("*.log"))


def test_cores_are_shared_out(play):
    population, _, said = play("work", "work", cores=5)

    assert events(population, 1, "began")[0]["threads"] == "2"
    assert "2 at once with 2 threads each" in said


def test_one_that_fails_stops_no_other_and_is_told(play):
    population, number, said = play("fail", "vanish", "mutter", "work")

    assert number == 0
    assert population.failures == {
        0: "the disk is full",
        1: "its process was killed (SIGKILL)",
        2: f"its process ended with status 3; {population.path / 'seed2.log'} holds what it said",
    }
    assert events(population, 3, "ended")
    assert "seed0 failed: the disk is full" in said
    assert "seed3 is done" in said


def tend(fleet, until):
    """Tend a fleet until something is so; fail after ten seconds."""
    end = time.monotonic() + 10
    while not until():
        assert time.monotonic() < end
        fleet.tend()
        time.sleep(0.02)


def began(place):
    events = place / "events.jsonl"
    return events.exists() and "began" in events.read_text()


def test_one_of_a_fleet_is_stopped_alone_and_leaves_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "available", lambda: 2)
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    made = Fleet({place: ["stay", str(place)] for place in (one, two, three)}, program=PROGRAM)
    tend(made, lambda: began(one) and began(two))
    pid = made.children[one].process.pid

    made.stop([one])

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [child.state for child in made.children.values()] == ["stopped", "running", "waiting"]
    tend(made, lambda: began(three))  # it has the free place
    made.stop()
    assert not made.active
    assert {child.state for child in made.children.values()} == {"stopped"}
    assert not made.failures


def test_who_waits_for_its_turn_when_a_fleet_is_stopped_never_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "available", lambda: 1)
    first, second = tmp_path / "first", tmp_path / "second"
    made = Fleet({place: ["stay", str(place)] for place in (first, second)}, program=PROGRAM)
    tend(made, lambda: began(first))

    made.stop()
    made.tend()

    assert not second.exists()
    assert not made.active


def test_a_run_of_a_fleet_may_have_fewer_threads_than_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "available", lambda: 8)
    places = [tmp_path / "few", tmp_path / "many"]
    made = Fleet(
        {place: ["work", str(place)] for place in places},
        threads={places[0]: 3, places[1]: 64},
        program=PROGRAM,
    )
    tend(made, lambda: not made.active)

    said = [json.loads((p / "events.jsonl").read_text().splitlines()[0]) for p in places]
    assert [one["threads"] for one in said] == ["3", "4"]  # of 8 cores each has 4


def asked(population, seed):
    return [event["number"] for event in events(population, seed, "asked")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_once_and_who_waits_does_not_begin(play, number):
    later(1.0, lambda: os.kill(os.getpid(), number))

    population, got, said = play("stay", "stay", "stay", cores=2)

    assert got == number
    assert [asked(population, seed) for seed in (0, 1)] == [[number], [number]]
    assert not population.place(2).exists()
    assert not population.failures
    assert "stopping each after its update" in said


def test_the_third_signal_waits_for_nobody(play):
    later(0.7, *[lambda: os.kill(os.getpid(), signal.SIGINT)] * 3)

    population, got, _ = play("deaf")

    assert got == signal.SIGINT
    assert asked(population, 0) == [signal.SIGINT] * 2
    assert population.failures == {0: "its process was killed (SIGKILL)"}


def test_an_error_of_ours_leaves_nobody_behind(play, monkeypatch, tmp_path):
    def fail(*args):
        if list(tmp_path.glob("pop/*/events.jsonl")):
            raise ZeroDivisionError

    monkeypatch.setattr(fleet.Board, "tick", fail)
    with pytest.raises(ZeroDivisionError):
        play("stay")

    assert asked(Population.open(tmp_path / "pop"), 0) == [signal.SIGTERM]


FOLLOWER = """
import sys
from hotlap.fleet import follow
follow()
import time
open(sys.argv[1], "w").close()
time.sleep(60)
"""


def test_who_follows_ends_with_the_one_it_follows(tmp_path):
    follower = subprocess.Popen(
        [sys.executable, "-c", FOLLOWER, str(tmp_path / "ready")], stdin=subprocess.PIPE
    )
    until = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert follower.poll() is None

    follower.stdin.close()  # as the system does when its holder is killed

    assert follower.wait(10) == -signal.SIGTERM


TINY = (
    *("track=oval", "train.seconds=0", "train.steps=256", "train.cars=8"),
    *("algorithm.network.mlp=[4]", "evaluation.laps=1", "evaluation.trials=2"),
)


@pytest.mark.slow
def test_two_seeds_are_two_runs_and_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    status, out, err = command("train", *TINY, "--seed", 7, "--seeds", 2, "--out", "pop")

    assert status == 0, err
    heads = " ".join(out.splitlines()[0].split())
    assert heads == "first clean laps s best lap s mean lap s completion"
    assert out.splitlines()[-2] == "population: pop"
    population = Population.open("pop")
    runs = population.runs()
    assert [run.meta["seed"] for run in runs.values()] == [7, 8]
    alone = hotlap.train(None, dict(w.split("=") for w in TINY[:1]) | {
        "seed": 8, "train.seconds": 0, "train.steps": 256, "train.cars": 8,
        "algorithm.network.mlp": [4], "evaluation.laps": 1, "evaluation.trials": 2,
    }, out=tmp_path / "alone")  # fmt: skip
    for name, array in alone.read_policy("last")[1].items():
        assert array.tobytes() == runs[8].read_policy("last")[1][name].tobytes(), name

    assert command("train", "--resume", "pop")[0] == 2  # nobody has a budget left
    (population.place(7) / "report.json").unlink()  # as if killed before its end
    made = hotlap.train(None, {"train.steps": 512}, resume="pop", seeds="all")

    assert [run.checkpoints()[-1] for run in made.runs().values()] == [512, 512]
    assert all(result.done for result in made.results())


def test_a_mistake_shows_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    for words, said in (
        (["--seeds", "many"], "seeds: give their number"),
        (["--seeds", "2", "algorithm.clip=7"], "algorithm.clip"),
        (["--seeds", "2", "--from", "nowhere"], "nowhere: no such directory"),
        (["--seeds", "999", "train.seconds=0"], "seeds never end, and the others never begin"),
    ):
        status, out, err = command("train", *words, "--out", "pop")
        assert (status, out) == (2, "")
        assert said in err
    assert not list(tmp_path.iterdir())
    status, out, err = command("train", "--seed", 3, "--seeds", 2, "--dry-run")
    assert (status, err) == (0, "seeds: 3, 4\n")
    assert out.startswith("track = ")


def test_only_all_of_a_population_goes_on(tmp_path):
    Population.create(tmp_path / "pop", "", (0, 1))

    for given in ({"seeds": 3}, {"seeds": "all", "out": "x"}, {"seeds": "all", "source": "y"}):
        with pytest.raises(ConfigError, match="--resume continues all seeds"):
            hotlap.train(resume=tmp_path / "pop", **given)
    with pytest.raises(RunError, match="is a population"):
        hotlap.train(resume=tmp_path / "pop")
    with pytest.raises(ConfigError, match=r"only train\.seconds, train\.steps"):
        hotlap.train(None, {"seed": 3}, resume=tmp_path / "pop", seeds="all")


def test_all_failing_is_an_error(tmp_path, monkeypatch):
    module = importlib.import_module("hotlap.train")

    def fail(population, words, **named):
        return Population(
            population.path, population.seeds, failures=dict.fromkeys(words, "no.")
        ), 0

    monkeypatch.setattr(module, "train_fleet", fail)
    with pytest.raises(RunError, match=r"every seed failed\. no\.") as told:
        hotlap.train(None, {"track": "oval"}, seeds=2, out=tmp_path / "pop")
    assert told.value.exit_code == 1


def test_who_is_stopped_is_told_how_to_go_on(tmp_path, monkeypatch):
    module = importlib.import_module("hotlap.train")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "train_fleet", lambda population, words, **named: (population, 2))

    status, out, err = command("train", "track=oval", "--seeds", "0,3", "--out", "pop", "--json")

    assert status == 130
    assert json.loads(out)["population"] == "pop"
    assert "hotlap: stopped. Continue with: hotlap train --resume pop\n" in err


def test_a_seed_that_died_before_it_was_a_run_begins_anew(tmp_path, monkeypatch):
    module, asked = importlib.import_module("hotlap.train"), {}

    def note(population, words, **named):
        asked.update(words)
        return population, 0

    monkeypatch.setattr(module, "train_fleet", note)
    population = hotlap.train(None, {"track": "oval"}, seeds=1, out=tmp_path / "pop")
    population.place(0).mkdir()  # killed before its meta.json

    hotlap.train(resume=population.path, seeds="all")

    assert "--resume" not in asked[0]
    assert not population.place(0).exists()


def test_what_was_reported_before_a_run_went_on_says_nothing_of_it_now(two):
    (run,) = [run for seed, run in two.runs().items() if seed == 4]
    with run:
        run.write_report({"best_lap_s": 9.0, "mean_lap_s": 9.0, "completion": 0.4})
        at = (run.path / "report.json").stat().st_mtime_ns + 10**9
        os.utime(run.path / "checkpoints" / "last", ns=(at, at))

    (result,) = [result for result in two.results() if result.seed == 4]

    assert (result.done, result.best_lap_s) == (False, None)


def test_resume_goes_on_where_each_is(tmp_path, monkeypatch):
    module = importlib.import_module("hotlap.train")
    asked = {}

    def note(population, words, **named):
        asked.update(words)
        return population, 0

    monkeypatch.setattr(module, "train_fleet", note)
    config = {"track": "oval", "train.steps": 256, "train.seconds": 0}
    population = hotlap.train(None, config, seeds=4, out=tmp_path / "pop")
    for seed, steps, reported in ((0, 256, True), (1, 256, False), (2, 100, True)):
        text = (population.path / "config.toml").read_text()
        with Run.create(population.place(seed), text, {"seed": seed}) as run:
            part = ({"steps": steps, "seconds": 1.0, "episodes": 0}, {})
            run.write_checkpoint(steps, policy=({}, {}), state=part, best=True)
            if reported:
                run.write_report({"completion": 1.0})
    Run.create(population.place(3), "", {}).close()  # killed before its first checkpoint
    asked.clear()

    hotlap.train(resume=population.path, seeds="all")

    assert {seed: words[1] for seed, words in asked.items()} == {
        1: "--resume",  # its report is missing
        2: "--resume",
        3: str(population.path / "config.toml"),
    }
    assert not population.place(3).exists()
    hotlap.train(None, {"train.steps": 999}, resume=population.path, seeds="all")
    assert sorted(asked) == [0, 1, 2, 3]
    assert asked[0][-1] == "train.steps=999"


@pytest.fixture
def two(tmp_path):
    """Make a population of a slow driver and a fast one."""
    made = Population.create(tmp_path / "pop", "", (4, 5, 6))
    for seed, speed in ((4, 1.2), (5, 1.9)):
        with Run.open(saved(made.place(seed), speed, settings={"seed": seed})) as run:
            run.log_metrics({"iteration": 1, "steps": 100 * seed, "reward": speed})
    return made


def test_a_population_is_evaluated_driver_by_driver(two):
    status, out, err = command("evaluate", two.path, "--trials", 1, "--laps", 1)
    asked = json.loads(
        command("evaluate", two.path, "--trials", 1, "--laps", 1, "--track", "medium", "--json")[1]
    )

    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[1][0] == "seed4"
    assert lines[2][:2] == ["seed5", "*"]
    assert out.splitlines()[-1] == f"run: {two.place(5)}"
    assert [report["track"] for report in asked["reports"].values()] == ["medium"] * 2
    slow, fast = (report["best_lap_s"] for report in asked["reports"].values())
    laps = asked["spread"]["best_lap_s"]
    assert fast is None  # it leaves the road there: as slow as can be, and not left out
    assert (laps["low"], laps["median"], laps["high"]) == (slow, None, None)


def test_what_differs_in_its_seed_alone_is_drawn_as_one(two, tmp_path, monkeypatch):
    with Run.open(saved(tmp_path / "other", 1.0, settings={"train.cars": 3})) as run:
        run.log_metrics({"iteration": 1, "steps": 9, "reward": 0.5})
    drawn, draw = {}, plot.learning_curves
    monkeypatch.setattr(
        plot, "learning_curves", lambda groups: drawn.update(groups) or draw(groups)
    )

    status, out, _ = command(
        "plot", tmp_path / "other", two.place(5), two.place(4), "--out", tmp_path / "all.png"
    )

    assert (status, out) == (0, f"plot: {tmp_path / 'all.png'}\n")
    assert list(drawn) == ["other", "seed5 and 1 more (2 seeds)"]
    assert [rows[0]["reward"] for rows in drawn["seed5 and 1 more (2 seeds)"]] == [1.9, 1.2]
    drawn.clear()
    assert command("plot", two.path)[1] == f"plot: {two.path / 'learning.png'}\n"
    assert list(drawn) == ["pop (2 seeds)"]
    assert (two.path / "learning.png").stat().st_size > 10_000


def test_a_plot_of_one_run_has_its_place(two):
    for words, said in (
        (["--out", "x.png", two.place(4)], "the plots of one run are in it"),
        (["--out", "x.pdf", two.place(4), two.place(5)], "end its name in .png"),
    ):
        status, out, err = command("plot", *words)
        assert (status, out) == (2, "")
        assert said in err


def test_the_alarm_of_a_seed_is_said_and_whose_it_is(tmp_path, monkeypatch):
    module = importlib.import_module("hotlap.train")
    monkeypatch.chdir(tmp_path)

    def drive(population, words, **named):
        for seed, alarm in ((0, None), (3, "too fast")):
            with Run.create(population.place(seed), "", {"seed": seed}) as run:
                run.write_report({"best_lap_s": 2.0, "mean_lap_s": 2.0, "alarm": alarm})
        return population, 0

    monkeypatch.setattr(module, "train_fleet", drive)

    status, out, err = command("train", "track=oval", "--seeds", "0,3", "--out", "pop", "--json")

    assert (status, len(json.loads(out)["seeds"])) == (0, 2)
    said = [line for line in err.splitlines() if "alarm" in line]
    assert said == ["hotlap: seed3: alarm: too fast"]
