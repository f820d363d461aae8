"""Recipes of a line that runs as a process: a signal, and an engine that is gone when it is asked for."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from ..runtime.conftest import brightness_graph, write_engine
from ..runtime.sinks.cable import free_port
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
    missed = {event["part"] for event in results if event["part_result"] == "missed"}  # what waited at the end
    judged = {part: count for part, count in frames.items() if part not in missed}
    assert all(count == {"plate": 2, "disc": 3}[recipe_of[part]] for part, count in judged.items())
    assert judged


def test_signal_without_a_file_of_a_recipe_is_told_of_and_ends_nothing(engine: Path, tmp_path: Path) -> None:
    options = ["--engine", engine, "--source", "test://?fps=60&size=64x128", "--output", tmp_path / "events.jsonl"]
    with running(tmp_path, "runtime.camera", *options) as line:
        line.until(lambda: len(events_of(tmp_path / "events.jsonl")) > 3)
        os.kill(line.process.pid, signal.SIGUSR1)
        line.until_said("there is none; give --recipe-file")
        assert line.end() == 0


def test_plc_changes_the_recipe_by_its_number(engine: Path, tmp_path: Path) -> None:
    modbus = pytest.importorskip("pymodbus.client", reason="needs the extra modbus")
    (tmp_path / "recipes.yaml").write_text("plate: {number: 1, threshold: 0.1}\ndisc: {number: 2, threshold: 0.999}\n")
    port, events = free_port(), tmp_path / "events.jsonl"
    options = ["--engine", engine, "--recipes", tmp_path / "recipes.yaml", "--recipe", "plate", "--trigger", "fifo"]
    outputs = ["--output", f"modbus://127.0.0.1:{port}", "--output", events]
    source = ["--source", "test://?fps=30&size=64x128"]
    with running(tmp_path, "runtime.camera", *options, *source, *outputs) as line:
        line.until(lambda: len(events_of(events)) > 4)
        client = modbus.ModbusTcpClient("127.0.0.1", port=port)

        def read(address: int) -> int:
            return int(client.read_holding_registers(address).registers[0])

        assert client.connect()
        try:
            assert read(22) == 1
            client.write_register(4, 2)
            line.until(lambda: read(22) == 2)
            client.write_register(4, 9)
            line.until(lambda: read(21) == 2)  # refused
            assert read(22) == 2
        finally:
            client.close()
        line.until(lambda: any(event.get("recipe") == "disc" for event in events_of(events)))
        assert line.end() == 0
    found = [(event["recipe"], event["part_result"]) for event in events_of(events) if "part_result" in event]
    assert found == sorted(found, key=lambda each: each[0], reverse=True)
    assert {recipe for recipe, _ in found} == {"plate", "disc"}
    assert all(result == "reject" for recipe, result in found if recipe == "plate")
