"""Recipes of a line that runs as a process: a signal, and an engine that is gone when it is asked for."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from ..runtime.conftest import brightness_graph, write_engine
from .line_process import running

pytestmark = pytest.mark.heavy


def events_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_signal_has_the_file_read_again_and_a_bad_recipe_changes_nothing(engine: Path, tmp_path: Path) -> None:
    disc = write_engine(tmp_path / "disc.onnx", model=brightness_graph(factor=1.5))
    (tmp_path / "recipes.yaml").write_text(
        f"plate: {{number: 1, engine: {engine}, threshold: 0.45, part-frames: 2}}\n"
        f"disc: {{number: 2, engine: {disc}, threshold: 3.5, part-frames: 3}}\n"
    )
    (tmp_path / "now").write_text("plate\n")
    events = tmp_path / "events.jsonl"
    options = ["--recipes", tmp_path / "recipes.yaml", "--recipe-file", tmp_path / "now", "--output", events]
    with running(
        tmp_path, "runtime.camera", *options, "--source", "test://?fps=60&size=64x128", "--trigger", "fifo"
    ) as line:

        def kinds() -> list[object]:
            return [event.get("recipe", event.get("event")) for event in events_of(events) if "event" in event]

        line.until(lambda: kinds().count("plate") > 5)
        for name, awaited in (("disc", "disc"), ("dics", "recipe-refused")):
            (tmp_path / "now").write_text(f"{name}\n")
            before = kinds().count(awaited)
            os.kill(line.process.pid, signal.SIGUSR1)
            line.until(lambda awaited=awaited, before=before: kinds().count(awaited) > before)
        disc.unlink()
        (tmp_path / "now").write_text("disc\n")
        os.kill(line.process.pid, signal.SIGUSR1)
        line.until(lambda: kinds().count("recipe-refused") == 2)
        assert line.end() == 0
    said = events_of(events)
    refused = [event["text"] for event in said if event.get("event") == "recipe-refused"]
    assert "did you mean disc?" in refused[0] and "is not a file" in refused[1]
    results = [event for event in said if event.get("event") == "part-result"]
    assert [event["part"] for event in results] == list(range(len(results)))
    recipes = [event["recipe"] for event in results]
    assert recipes == sorted(recipes, reverse=True) and set(recipes) == {"plate", "disc"}
    hashes = {recipe: {event["engine_sha256"] for event in results if event["recipe"] == recipe} for recipe in recipes}
    assert [len(found) for found in hashes.values()] == [1, 1] and hashes["plate"] != hashes["disc"]
    recipe_of = {event["part"]: event["recipe"] for event in results}
    for event in said:
        if "event" not in event and event["part"] in recipe_of:
            recipe = recipe_of[event["part"]]
            assert event["threshold"] == {"plate": 0.45, "disc": 3.5}[recipe]
            assert {event["engine_sha256"]} == hashes[recipe]
    frames = {part: sum(event.get("part") == part and "event" not in event for event in said) for part in recipe_of}
    assert all(count == {"plate": 2, "disc": 3}[recipe_of[part]] for part, count in list(frames.items())[:-1])


def test_signal_without_a_file_of_a_recipe_ends_the_program_as_it_does_any(engine: Path, tmp_path: Path) -> None:
    options = ["--engine", engine, "--source", "test://?fps=60&size=64x128", "--output", tmp_path / "events.jsonl"]
    with running(tmp_path, "runtime.camera", *options) as line:
        line.until(lambda: len(events_of(tmp_path / "events.jsonl")) > 3)
        assert line.end(signal.SIGUSR1) == -signal.SIGUSR1
