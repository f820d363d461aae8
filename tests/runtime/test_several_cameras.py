"""Several cameras of one file, in one process, and the engines that they share."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtime.backends.base import Backend
from runtime.camera import command, main
from runtime.config import read_line
from runtime.detector import Detector
from runtime.engines import Engines
from runtime.sources.live import LiveSource
from runtime.watchdog import Watchdog
from stlm_edge import Sidecar
from stlm_edge.errors import EngineError, SourceTimeout

from .conftest import SPEC, picture
from .test_camera import events_of
from .test_line import FirstPixel, detector_of
from .test_part_line import SOON_S, Gated, wait_until

LINE = """
engine: {engine}
votes: 1/2
part-frames: 2
recipes:
  plate: {{number: 1, threshold: 0.4}}
  disc: {{number: 2, threshold: 0.7}}
cameras:
  left:
    source: test://?frames=6&size=64x128
    recipe: plate
    output: {folder}/left.jsonl
    summary: {folder}/left.json
  right:
    source: test://?frames=8&size=64x128
    recipe: disc
    votes: 1/1
    output: [{folder}/right.jsonl, {folder}/right.csv]
    summary: {folder}/right.json
"""


@pytest.fixture
def file(engine: Path, tmp_path: Path) -> Path:
    path = tmp_path / "line.yaml"
    path.write_text(LINE.format(engine=engine, folder=tmp_path))
    return path


def test_camera_has_what_is_common_unless_it_says_otherwise(file: Path, engine: Path, tmp_path: Path) -> None:
    left, right = read_line(file, command=command)
    assert (left.name, left.votes, left.part_frames, left.engine) == ("left", "1/2", 2, engine)
    assert (right.name, right.votes, right.part_frames, right.engine) == ("right", "1/1", 2, engine)
    assert right.output == (f"{tmp_path}/right.jsonl", f"{tmp_path}/right.csv")
    assert left.recipes == right.recipes and [recipe.name for recipe in left.recipes] == ["plate", "disc"]


def test_recipes_may_lie_in_a_file_of_their_own(file: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes.yaml").write_text("plate: {number: 1}\ndisc: {number: 5}\n")
    head, _, tail = file.read_text().partition("recipes:")
    file.write_text(f"{head}recipes: {tmp_path}/recipes.yaml\ncameras:{tail.partition('cameras:')[2]}")
    assert [recipe.number for recipe in read_line(file, command=command)[1].recipes] == [1, 5]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("cameras:", "camera:", "line.yaml has the setting 'camera', which is unknown there; did you mean cameras?"),
        ("votes: 1/2", "vote: 1/2", "line.yaml has the setting 'vote', which is unknown there; did you mean votes?"),
        ("    votes: 1/1", "    voets: 1/1", "camera 'right' has the setting 'voets'"),
        (
            "    votes: 1/1",
            "    inference-timeout: 5",
            "'inference-timeout', which is of the program; move it",
        ),
        ("    votes: 1/1", "    config: line.yaml", "camera 'right' has the setting 'config'"),
        ("    votes: 1/1", "    camera-faults: perhaps", "camera-faults is 'perhaps', expected true or false"),
        ("    votes: 1/1", "    fps: -1", "line.yaml: camera 'right': fps cannot be used: -1.0 is not in the range"),
        ("    votes: 1/1", "    trigger: laser", "camera 'right': trigger cannot be used: 'laser' is not one of"),
        ("  right:", "  left:", "says 'left' twice"),
        ("number: 2", "number: 1", "recipe 'disc' has the number 1"),
    ],
)
def test_file_that_cannot_be_is_one_line(
    file: Path, before: str, after: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text().replace(before, after))
    assert main(["--config", str(file)]) == 1
    assert message in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("right.jsonl", "./left.jsonl", "is given to the cameras left and right; give each its own"),
        ("right.json\n", "left.json\n", "is given to the cameras left and right; give each its own"),
        ("right.json\n", "line.yaml\n", "is read by this run"),
        ("right.jsonl", "drop", "is the folder that is inspected"),
        ("recipe: disc", "recipe: dics", "camera right: found no recipe 'dics', did you mean disc?"),
        ("test://?frames=8&size=64x128", "nowhere.avi", "camera right: nowhere.avi does not exist"),
    ],
)
def test_cameras_that_cannot_run_together_are_refused(
    file: Path, before: str, after: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "drop").mkdir()
    text = file.read_text().replace("source: test://?frames=6&size=64x128", f"source: {file.parent}/drop?watch=1")
    file.write_text(text.replace(before, after))
    assert main(["--config", str(file)]) == 1
    assert message in capfd.readouterr().err.splitlines()[-1]


def test_options_beside_a_file_are_refused(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(file), "--votes", "1/2"]) == 2
    assert "found --votes beside --config" in capfd.readouterr().err


def test_each_camera_has_its_recipe_its_outputs_and_its_summary(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(file)]) == 0
    told = capfd.readouterr()
    assert "camera left\nframes inspected   6 " in told.out
    assert "camera right\nframes inspected   8 " in told.out
    assert told.err.count("runs on") == 1  # one engine for both
    for name, frames, threshold, recipe in (("left", 6, 0.4, "plate"), ("right", 8, 0.7, "disc")):
        lines = events_of(tmp_path / f"{name}.jsonl")
        assert [line["frame"] for line in lines if "frame" in line] == list(range(frames))
        assert {line["threshold"] for line in lines if "threshold" in line} == {threshold}
        results = [line for line in lines if line.get("event") == "part-result"]
        assert [(line["part"], line["recipe"]) for line in results] == [(part, recipe) for part in range(frames // 2)]
        assert json.loads((tmp_path / f"{name}.json").read_text())["frames"] == frames


def test_one_camera_of_a_file_is_as_by_options(file: Path, tmp_path: Path) -> None:
    head, _, right = file.read_text().partition("  left:")
    file.write_text(head + right[right.index("  right:") :])
    assert main(["--config", str(file)]) == 0
    assert len((tmp_path / "right.csv").read_text().splitlines()) == 1 + 8


def test_camera_that_fails_for_good_does_not_end_the_others(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    submit = Detector.submit

    def fail(detector: Detector, images: object) -> object:
        if detector.threshold.value == 0.7:
            raise EngineError("the GPU is gone")
        return submit(detector, images)

    monkeypatch.setattr(Detector, "submit", fail)
    assert main(["--config", str(file)]) == 1
    told = capfd.readouterr()
    assert "camera right has ended, the others go on: the GPU is gone" in told.err
    assert told.err.splitlines()[-1].startswith("error: 1 camera of 2 failed (right)")
    assert json.loads((tmp_path / "left.json").read_text())["part_results"] == {"reject": 3}
    # Its summary is written too, and what it has not judged is missed.
    assert json.loads((tmp_path / "right.json").read_text())["part_results"] == {"missed": 1}


def test_mistake_in_one_camera_is_shown_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Detector, "submit", fail)
    with pytest.raises(ZeroDivisionError):
        main(["--config", str(file)])


class Counting(FirstPixel):
    """Answers for the first pixel, and never two batches at a time from two threads."""

    def __init__(self, *, max_batch: int) -> None:
        super().__init__(spec=dataclasses.replace(SPEC, max_batch=max_batch), delay_s=0.001)
        self.threads: set[int] = set()

    def _start(self, batch: object) -> object:
        self.threads.add(threading.get_ident())
        return super()._start(batch)


def sharing(monkeypatch: pytest.MonkeyPatch, backend: Backend, *, watchdog: Watchdog, cameras: int) -> Engines:
    sidecar = Sidecar(backend._spec, detector_of(backend).sidecar.engine)

    def open_engine(path: Path, *, backend: str, side_by_side: bool) -> tuple[Backend, Sidecar]:
        assert side_by_side == (cameras > 1)
        return engine, sidecar

    monkeypatch.setattr("runtime.engines.open_engine", open_engine)
    monkeypatch.setattr("runtime.engines.Sidecar.read", lambda path: sidecar)
    engine = backend
    return Engines(watchdog=watchdog, cameras=cameras)


def opened(engines: Engines) -> Detector:
    lease, sidecar = engines.open(Path("shared.onnx"))
    return Detector(lease, sidecar=sidecar, threshold=sidecar.spec.require_threshold())


@pytest.mark.parametrize("max_batch", [1, 3])
def test_cameras_that_share_an_engine_have_their_own_answers(monkeypatch: pytest.MonkeyPatch, max_batch: int) -> None:
    backend, wrong = Counting(max_batch=max_batch), []

    def ask(detector: Detector, camera: int) -> None:
        for number in range(30):
            value = (camera * 31 + number * 7) % 256
            first = detector.submit([picture(value)])
            second = detector.submit([picture(255 - value)])
            found = [round(255 * pending.result()[0].score) for pending in (first, second)]
            if found != [value, 255 - value]:
                wrong.append((camera, number, found))

    with Watchdog(60, on_hang=print) as watchdog:
        engines = sharing(monkeypatch, backend, watchdog=watchdog, cameras=4)
        detectors = [opened(engines) for _ in range(4)]
        threads = [threading.Thread(target=ask, args=(each, place)) for place, each in enumerate(detectors)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON_S)
            assert not thread.is_alive()
        assert wrong == []
        assert sum(backend.batches) == 4 * 60
        assert max(backend.batches) == max_batch
        assert len(backend.threads) == 1
        for detector in detectors:
            assert not backend._closed
            detector.close()
        assert backend._closed


def test_fewer_frames_of_each_are_in_hand_where_others_keep_the_engine_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Watchdog(60, on_hang=print) as watchdog:
        engines = sharing(monkeypatch, Counting(max_batch=2), watchdog=watchdog, cameras=4)
        first = opened(engines)
        assert first.in_hand == 2
        others = [opened(engines) for _ in range(3)]
        assert first.in_hand == 1
        for detector in others:
            detector.close()
        assert first.in_hand == 2
        first.close()


def test_failure_of_the_engine_is_told_to_all_whose_frames_were_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Gated()
    backend.broken = True
    with Watchdog(60, on_hang=print) as watchdog:
        engines = sharing(monkeypatch, backend, watchdog=watchdog, cameras=2)
        left, right = opened(engines), opened(engines)
        backend.gate.clear()
        pending = [left.submit([picture(10)]), right.submit([picture(20)])]
        backend.gate.set()
        for each in pending:
            with pytest.raises(EngineError, match="the GPU is gone"):
                each.result()
        with pytest.raises(EngineError, match="expects"):  # of one camera alone, and before it is in a batch
            left._backend.submit(np.zeros((1, 8, 8, 3), np.uint8))
        left.close()
        with pytest.raises(EngineError, match="closed"):
            left.inspect(picture(10))
        right.close()


def test_engine_that_was_replaced_is_another_one_and_a_foreign_sidecar_is_refused(engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "plate.onnx"
    copy.write_bytes(engine.read_bytes())
    Sidecar.path_for(copy).write_bytes(Sidecar.path_for(engine).read_bytes())
    with Watchdog(60, on_hang=print) as watchdog:
        engines = Engines(watchdog=watchdog, cameras=1)
        first, _ = engines.open(copy)
        other = Sidecar.read(copy)
        Sidecar(other.spec, dataclasses.replace(other.engine, engine_sha256="f" * 64)).write(copy)
        with pytest.raises(EngineError, match="has another engine's sidecar"):
            engines.open(copy)
        other.write(copy)
        copy.unlink()
        copy.write_bytes(engine.read_bytes())
        second, _ = engines.open(copy)
        assert len(engines._opened) == 2
        first.close()
        second.close()
        assert engines._opened == {}


def test_source_that_waits_on_another_thread_is_woken() -> None:
    source = LiveSource(name="camera", timeout_s=30.0)
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(SourceTimeout):
            source.read()
        ended.set()

    threading.Thread(target=read).start()
    time.sleep(0.05)
    source.wake()
    wait_until(ended.is_set)


def test_files_of_the_documentation_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (Path(__file__).parents[2] / "docs" / "line.md").read_text()
    # Indented code, each beginning with its first line and ending with a blank one.
    recipes, line = (
        textwrap.dedent(re.search(rf"^    {first}.*?(?=\n\n)", document, re.MULTILINE | re.DOTALL)[0])
        for first in ("plate: &plate", "engine: /opt/line")
    )
    monkeypatch.chdir(tmp_path)
    Path("recipes.yaml").write_text(recipes)
    Path("line.yaml").write_text(line)
    left, right = read_line(Path("line.yaml"), command=command)
    assert [(recipe.name, recipe.number) for recipe in left.recipes] == [("plate", 1), ("plate-matt", 2), ("disc", 3)]
    said = [(left.by(recipe).threshold, left.by(recipe).unclear) for recipe in left.recipes]
    assert said == [(0.62, None), (0.7, None), (None, "0.4:0.7")]
    assert (left.deadline_ms, right.part_gap, right.recipe_file) == (80, 0.5, "right.recipe")
