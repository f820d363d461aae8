"""Whoever runs an engine is told what the gate has said of it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from runtime.detector import Detector
from stlm_edge.sidecar import Gate, Limits, Sidecar

from .conftest import write_engine

LIMITS = Limits(1e-4, 1e-4, 0.9999, 1e-4, 0.9999, 0.01)
VERIFIED = Gate(verified=True, executed=True, reference="pytorch", limits=LIMITS, drifts=())


def opened_with(gate: Gate | None, folder: Path, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the runtime logs about the verdict when it opens an engine with such a record."""
    path = write_engine(folder / "plate.onnx")
    sidecar = Sidecar.read(path)
    dataclasses.replace(sidecar, engine=dataclasses.replace(sidecar.engine, gate=gate)).write(path)
    with caplog.at_level(logging.INFO), Detector.open(path):
        pass
    return [record for record in caplog.records if record.name == "runtime.verification"]


def test_engine_without_a_verdict_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (record,) = opened_with(None, tmp_path, caplog)
    assert record.levelno == logging.WARNING
    assert "UNVERIFIED ENGINE" in record.message
    assert f"stlm verify {tmp_path / 'plate.onnx'}" in record.message


def test_refused_engine_is_warned_of_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gate = dataclasses.replace(VERIFIED, verified=False, objections=("openvino: largest map error is 1",))
    (record,) = opened_with(gate, tmp_path, caplog)
    assert record.levelno == logging.WARNING
    assert "REFUSED ENGINE" in record.message
    assert "openvino: largest map error is 1" in record.message


def test_engine_that_was_not_executed_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (record,) = opened_with(dataclasses.replace(VERIFIED, executed=False), tmp_path, caplog)
    assert record.levelno == logging.INFO
    assert "verified by its graph alone" in record.message
    assert "where it can be: stlm verify" in record.message  # here may be no such place


def test_nothing_is_said_of_a_verified_engine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert opened_with(VERIFIED, tmp_path, caplog) == []
