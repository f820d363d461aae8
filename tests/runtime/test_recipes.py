"""Recipes: what their file may say, and that each part is judged by one of them from its first frame to its result."""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from pathlib import Path

import pytest

from runtime.camera import command, main
from runtime.config import CameraConfig, find_recipe, read_recipes
from runtime.detector import Detector
from runtime.engines import Engines
from runtime.line import Line
from runtime.line_control import Control
from runtime.parts import Judging, PartRule, Parts
from runtime.recipes import RecipeChanger, chosen_recipe, open_judge
from runtime.signals import StopRequest
from runtime.sources.live import LiveSource
from runtime.summary import RunRecorder
from runtime.voting import VotingRule
from runtime.watchdog import Watchdog
from stlm_edge.errors import ConfigError, ControlError

from .conftest import SPEC, brightness_graph, write_engine
from .test_camera import QUICK, events_of
from .test_line import Everything, FirstPixel, Script, judge_of
from .test_part_line import Camera, Gated, running, wait_until

TWO = """
plate: &plate
  number: 1
  part-frames: 1
  threshold: 0.3
disc:
  <<: *plate
  number: 2
  threshold: 0.7
"""


def options(**given: object) -> CameraConfig:
    names = {field.name for field in dataclasses.fields(CameraConfig)} - {"recipes", "name"}
    with command.make_context("camera", []) as context:
        return CameraConfig(**{name: context.params[name] for name in names} | given)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipes.yaml"
    path.write_text(TWO)
    return path


def test_every_option_of_the_command_is_a_field_and_the_reverse() -> None:
    fields = {field.name for field in dataclasses.fields(CameraConfig)} - {"recipes", "name"}
    taken = {option.name for option in command.params if option.expose_value} - {"recipes", "config"}
    assert fields == taken


def test_recipe_says_what_the_command_line_would_make_of_it(file: Path) -> None:
    file.write_text("a: {number: 7, engine: a.onnx, threshold: 5e-1, votes: 2/3, part-gap: .5, unclear: 0.1:0.2}")
    (recipe,) = read_recipes(file, command=command)
    assert (recipe.name, recipe.number) == ("a", 7)
    said = {"engine": Path("a.onnx"), "threshold": 0.5, "votes": "2/3", "part_gap": 0.5, "unclear": "0.1:0.2"}
    assert recipe.says == said


def test_camera_has_what_its_recipe_does_not_say(file: Path) -> None:
    plate, disc = read_recipes(file, command=command)
    config = options(engine=Path("x.onnx"), unclear="0.1:0.2", votes="2/3", recipes=(plate, disc))
    assert config.by(None) is config
    by = config.by(disc)
    assert (by.engine, by.votes, by.threshold, by.part_frames) == (Path("x.onnx"), "2/3", 0.7, 1)
    assert by.unclear is None  # of the camera, which would contradict the recipe's one threshold


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("number: 2", "number: 1", "recipe 'disc' has the number 1, as 'plate' has"),
        ("disc:", "plate:", "says 'plate' twice"),
        ("part-frames", "part-frame", "'part-frame', which is unknown there; did you mean part-frames?"),
        ("part-frames", "output", "'output', which is unknown there; known are number, engine"),
        ("disc:", "2:", "recipe '2' has a number for a name"),
        ("number: 1", "number: one", "has the number 'one', expected 'number:' with a whole one from 1 to 65535"),
        ("number: 1", "number: 65536", "expected 'number:' with a whole one from 1 to 65535"),
        ("number: 1\n", "threshold: 0.5\n", "twice"),
        ("threshold: 0.7", "threshold: high", "recipe 'disc': threshold cannot be used: 'high' is not a valid"),
        ("threshold: 0.7", "threshold: [0.7]", "threshold is ['0.7'], expected one text or number"),
        (
            "  <<: *plate\n  number: 2\n  threshold: 0.7",
            "  votes",
            "recipe 'disc' is 'votes', expected settings by name",
        ),
    ],
)
def test_file_of_recipes_that_cannot_be_is_one_line(file: Path, before: str, after: str, message: str) -> None:
    file.write_text(TWO.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        read_recipes(file, command=command)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_recipe_is_found_by_name_or_number_and_the_nearest_is_named(file: Path) -> None:
    recipes = read_recipes(file, command=command)
    assert [find_recipe(recipes, wanted).name for wanted in ("plate", "disc", "1", "2")] == ["plate", "disc"] * 2
    with pytest.raises(ControlError, match=r"found no recipe 'dics', did you mean disc\? Known are plate \(1\)"):
        find_recipe(recipes, "dics")
    with pytest.raises(ControlError, match="since this line has none"):
        find_recipe((), "disc")


def test_recipe_to_begin_with_is_said(file: Path, tmp_path: Path) -> None:
    config = options(recipes=read_recipes(file, command=command))
    with pytest.raises(ConfigError, match="expected one of plate, disc; give --recipe or --recipe-file"):
        chosen_recipe(config)
    (tmp_path / "now").write_text("disc\n")
    by_file = dataclasses.replace(config, recipe_file=str(tmp_path / "now"))
    assert chosen_recipe(by_file).name == "disc"
    assert chosen_recipe(dataclasses.replace(config, recipe="1")).name == "plate"
    assert chosen_recipe(options()) is None
    with pytest.raises(ConfigError, match="this line has none"):
        chosen_recipe(options(recipe="plate"))


def inspect(engine: Path, file: Path, *more: str | Path) -> int:
    return main(["--engine", str(engine), "--recipes", str(file), "--source", QUICK, *map(str, more)])


def test_parts_and_events_name_the_recipe(engine: Path, file: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    assert inspect(engine, file, "--recipe", "disc", "--output", events) == 0
    lines = events_of(events)
    assert {line["threshold"] for line in lines if "threshold" in line} == {0.7}
    assert [line["recipe"] for line in lines if line.get("event") == "part-result"] == ["disc"] * 6


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("threshold: 0.7", "engine: nowhere.onnx", "recipe disc: nowhere.onnx is not a file"),
        ("threshold: 0.7", "threshold: 70", "recipe disc: the threshold is 70"),
        ("threshold: 0.7", "roi: nowhere.json", "recipe disc: nowhere.json does not exist"),
        ("threshold: 0.7", "tile: 2", "recipe disc: "),
        ("threshold: 0.7", "votes: 2/3", "recipe disc: a part has 1 frame, so 2 of 3 can never vote"),
        ("threshold: 0.7", "release: 0.9", "recipe disc: an alarm would end below 0.9"),
        ("threshold: 0.7", "backend: tensorrt", "tensorrt cannot run it"),
        ("  part-frames: 1\n  threshold: 0.3\n", "  threshold: 0.3\n", None),
        ("  <<: *plate\n", "", "one of the recipes plate and disc has parts and the other frames alone"),
    ],
)
def test_recipe_that_is_not_used_is_looked_at_before_the_line_starts(
    engine: Path, file: Path, before: str, after: str, message: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    file.write_text(TWO.replace(before, after))
    assert inspect(engine, file, "--recipe", "plate") == (0 if message is None else 1)
    assert message is None or message in capfd.readouterr().err.splitlines()[-1]


def test_recipe_is_given_once(engine: Path, file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect(engine, file, "--recipe", "disc", "--recipe-file", file) == 1
    assert "expected one of them" in capfd.readouterr().err


def test_part_that_has_begun_keeps_what_it_is_judged_by() -> None:
    old = Judging(PartRule(frames=2, deadline_s=1.0), VotingRule(), "old", "a" * 64)
    new = Judging(PartRule(frames=3, deadline_s=9.0), VotingRule(), "new", "b" * 64)
    parts = Parts(old)
    assert parts.arrived(0, timestamp_s=0.0, now_s=0.0) == 0
    parts.change(new)
    assert parts.due_s() == 1.0
    assert [parts.arrived(index, timestamp_s=0.1, now_s=0.1) for index in (1, 2, 3, 4, 5)] == [0, 1, 1, 1, 2]
    assert [parts.judging_of(index) for index in range(6)] == [old, old, new, new, new, new]
    assert parts.in_use() == {old, new}
    parts.finish(now_s=0.2)
    first, second, third = parts.take_results()
    assert [(part.recipe, part.engine_sha256) for part in (first, second, third)] == [
        ("old", "a" * 64),
        ("new", "b" * 64),
        ("new", "b" * 64),
    ]


def test_frames_that_a_deadline_hands_on_are_judged_by_what_inspects_them() -> None:
    """Where the deadline alone cuts the stream, what has no verdict yet is of the next part."""
    old, new = (Judging(PartRule(deadline_s=1.0), VotingRule(), name) for name in ("old", "new"))
    parts = Parts(old)
    parts.arrived(0, timestamp_s=0.0, now_s=0.0)
    parts.change(new)
    parts.tick(1.0)
    assert parts.part_of(0, now_s=1.0) == 1
    assert parts.judging_of(0) is old
    parts.finish(now_s=1.5)
    assert [part.recipe for part in parts.take_results()] == ["old", "old"]


def test_frames_in_hand_and_in_the_queue_stay_with_their_own_recipe() -> None:
    old, new = (
        Gated(),
        FirstPixel(spec=dataclasses.replace(SPEC, threshold=dataclasses.replace(SPEC.threshold, value=0.1))),
    )
    with running(camera := Camera(queue=8), PartRule("hardware"), backend=old) as line:
        old.gate.clear()
        for _ in range(4):
            camera.give(60)
        wait_until(lambda: old.batches)
        line.control.use(judge_of(new, spec=new._spec, rule=PartRule("hardware"), recipe="new"))
        for _ in range(3):
            camera.give(60)
        assert not old._closed
        old.gate.set()
        assert line.wait_for(7) == ["good"] * 4 + ["reject"] * 3
        assert [part.recipe for part in line.kept.parts] == [None] * 4 + ["new"] * 3
        wait_until(lambda: old._closed)
        assert not new._closed
    assert (sum(old.batches), sum(new.batches)) == (4, 3)
    assert [inspection.threshold for inspection in line.kept.inspections] == [0.5] * 4 + [0.1] * 3


def test_frames_without_parts_are_judged_by_the_one_of_their_batch() -> None:
    backends = [FirstPixel() for _ in range(3)]
    source, kept = Script([60] * 30), Everything()
    control = Control(judge_of(backends[0]), source=source)
    left = list(backends[1:])

    class Changing(Everything):
        def write(self, inspection: object) -> None:
            super().write(inspection)
            if left and len(self.inspections) % 10 == 0:
                control.use(judge_of(left.pop(0)))

    kept = Changing()
    Line(source, control, outputs=kept, recorder=RunRecorder()).run(StopRequest())
    assert [inspection.frame.index for inspection in kept.inspections] == list(range(30))
    assert sum(sum(backend.batches) for backend in backends) == 30
    assert [backend._closed for backend in backends] == [True, True, False]
    control.close_judges()
    assert backends[2]._closed


@pytest.mark.heavy
def test_a_thousand_changes_leave_no_part_without_its_own_recipe() -> None:
    """Parts of three frames, bursts, deadlines and hiccups, and a change whenever it likes."""
    chance, camera = random.Random(0), Camera(queue=64)
    thresholds = {f"t{percent}": percent / 100 for percent in range(20, 80, 10)}
    backends: list[FirstPixel] = []

    def another(name: str) -> object:
        spec = dataclasses.replace(SPEC, threshold=dataclasses.replace(SPEC.threshold, value=thresholds[name]))
        backends.append(FirstPixel(spec=spec, delay_s=chance.choice([0.0, 0.0005])))
        return judge_of(backends[-1], spec=spec, rule=rule, recipe=name)

    rule = PartRule("hardware", frames=3)
    with running(camera, rule) as line:
        for _ in range(1000):
            for _ in range(chance.randrange(4)):
                camera.give(chance.randrange(30, 220))
            line.control.use(another(chance.choice(list(thresholds))))
            time.sleep(chance.choice([0, 0, 0.001]))
            wait_until(lambda: camera.waiting < 32)
        while camera.count % 3:
            camera.give(100)
        results = line.wait_for(camera.count // 3)
        wait_until(lambda: sum(not backend._closed for backend in backends) == 1)
    assert set(results) == {"good", "reject"}
    shown: dict[int, list[object]] = {}
    for inspection in line.kept.inspections:
        shown.setdefault(inspection.part, []).append(inspection)
    used = set()
    for part in line.kept.parts:
        threshold = thresholds.get(part.recipe, 0.5)
        assert [inspection.threshold for inspection in shown[part.number]] == [threshold] * 3
        assert (part.verdict == "reject") == any(each.anomaly.score >= threshold for each in shown[part.number])
        used.add(part.recipe)
    assert len(used) > 5


class Changes:
    """A line with recipes by real engines, on a thread of its own."""

    def __init__(self, config: CameraConfig, camera: LiveSource, watchdog: Watchdog) -> None:
        self.engines = Engines(watchdog=watchdog, cameras=1)
        judge = open_judge(config, config.recipes[0], watchdog=watchdog, opener=self.engines.open)
        self.control, self.events = Control(judge, source=camera), []
        self.control.start(lambda event: self.events.append((event.kind, event.text)))
        self.changer = RecipeChanger(config, self.control, opener=self.engines.open)


@pytest.fixture
def changes(engine: Path, file: Path, tmp_path: Path):
    first, second = (Path(shutil.copy(engine, tmp_path / name)) for name in ("plate.onnx", "disc.onnx"))
    write_engine(first)
    write_engine(second, model=brightness_graph(factor=1.5))
    file.write_text(
        f"plate: {{number: 1, engine: {first}, part-frames: 1}}\n"
        f"bright: {{number: 2, engine: {first}, part-frames: 1, threshold: 0.9}}\n"
        f"disc: {{number: 3, engine: {second}, part-frames: 1}}\n"
    )
    recipes = read_recipes(file, command=command)
    config = options(recipes=recipes, recipe_file=str(tmp_path / "now"), backend="openvino")
    with Watchdog(60, on_hang=print) as watchdog:
        made = Changes(config, Camera(queue=8), watchdog)
        with made.changer:
            yield made
        made.control.close_judges()
        assert made.engines._opened == {}


def test_recipe_is_opened_beside_and_used_then(changes: Changes) -> None:
    assert (changes.control.status().recipe, changes.control.status().recipe_number) == ("plate", 1)
    changes.control.change_recipe("3")
    wait_until(lambda: changes.control.status().recipe == "disc")
    assert changes.control.status().recipe_number == 3
    wait_until(lambda: changes.events)
    assert changes.events == [("recipe-changed", "recipe disc (3) judges from the next part on")]


def test_recipes_of_one_engine_share_it(changes: Changes, monkeypatch: pytest.MonkeyPatch) -> None:
    changes.control.change_recipe("bright")
    wait_until(lambda: changes.control.status().recipe == "bright")
    assert changes.control.judge.detector.threshold.value == 0.9
    (opened,) = changes.engines._opened.values()
    assert opened.users == 2
    changes.control.retire([])
    assert opened.users == 1


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_recipe_that_cannot_be_opened_leaves_the_old_one(changes: Changes, tmp_path: Path, harm: str) -> None:
    engine = tmp_path / "disc.onnx"
    if harm == "gone":
        engine.unlink()
    else:
        engine.write_bytes(engine.read_bytes() + b"\0")
    changes.control.change_recipe("disc")
    wait_until(lambda: changes.events)
    ((kind, text),) = changes.events
    assert kind == "recipe-refused"
    assert text.startswith(f"recipe disc cannot be used and plate stays: {engine}")
    assert changes.control.status().recipe == "plate"
    changes.control.change_recipe("bright")
    wait_until(lambda: changes.control.status().recipe == "bright")


def test_unknown_recipe_is_refused_at_once(changes: Changes) -> None:
    with pytest.raises(ControlError, match="did you mean plate"):
        changes.control.change_recipe("palte")
    with pytest.raises(ControlError, match="this line has none"):
        Control(judge_of(FirstPixel()), source=Script([])).change_recipe("plate")


def test_file_names_the_recipe(changes: Changes, tmp_path: Path) -> None:
    changes.changer.read_file()
    wait_until(lambda: changes.events)
    assert changes.events[0][0] == "recipe-refused" and "expected the name of a recipe" in changes.events[0][1]
    (tmp_path / "now").write_text("disc\n")
    changes.changer.read_file()
    wait_until(lambda: changes.control.status().recipe == "disc")


def test_last_of_several_that_are_asked_for_is_opened(changes: Changes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(
        "runtime.recipes.open_judge",
        lambda config, recipe, **of: (opened.append(recipe.name), time.sleep(0.2), open_judge(config, recipe, **of))[2],
    )
    changes.control.change_recipe("disc")
    wait_until(lambda: opened == ["disc"])
    for name in ("plate", "disc", "bright"):
        changes.control.change_recipe(name)
    wait_until(lambda: changes.control.status().recipe == "bright")
    assert opened == ["disc", "bright"]
    assert [kind for kind, _ in changes.events].count("recipe-refused") == 2


def test_engine_that_hangs_while_it_is_opened_is_told_and_the_line_goes_on(
    changes: Changes, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(changes.changer._config, inference_timeout=0.02)
    monkeypatch.setattr(Detector, "open", lambda *_, watchdog, **__: _hang(watchdog))
    with RecipeChanger(config, changes.control, opener=changes.engines.open):
        changes.control.change_recipe("disc")
        wait_until(lambda: changes.events)
    assert changes.events[0][0] == "recipe-refused"
    text = changes.events[0][1]
    assert text.startswith("recipe disc is not open yet and plate stays: opening has not ended for 0.1 s")
    assert changes.control.status().recipe == "plate"


def _hang(watchdog: Watchdog) -> None:
    with watchdog.watching("opening", pictures=5):
        time.sleep(1.0)
    raise ConfigError("too late")
