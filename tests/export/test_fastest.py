"""`--precision auto`: what is fastest as measured, if the gate accepts it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from export.__main__ import main
from export.fastest import Fastest, builders_here, export_fastest, fastest_first
from export.gate.limits import LIMITS
from export.gate.pictures import Pictures
from export.openvino import CpuPrecision, Times
from export.publish import unverified_name
from runtime.backends import open_engine
from runtime.backends.openvino import has_bf16
from stlm_edge.errors import ConfigError, VerificationError
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec

from .conftest import files
from .tiny import PLATE

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no bfloat16")
WHOLE = ["plate.bin", "plate.xml", "plate.xml.json"]
IMPOSSIBLE = dataclasses.replace(LIMITS["fp32"], max_map_error=0.0)

FP32 = [10.0, 11.0, 10.0, 10.5, 10.0, 30.0, 10.0, 10.0]
"""A machine does other things as well."""


def times(**shares: float | Sequence[float]) -> Times:
    """Of float32, and of others as shares of it in all turns or in each."""
    found = {"fp32": FP32}
    for name, share in shares.items():
        each = [share] * len(FP32) if isinstance(share, float) else share
        found[name] = [one * base for one, base in zip(each, FP32, strict=True)]
    return found


class Clock:
    """A timer that says what it is told to."""

    def __init__(self, **shares: float) -> None:
        self.shares = shares
        self.timed: list[CpuPrecision] = []

    def __call__(self, engines: Mapping[CpuPrecision, Path], spec: ModelSpec) -> Times:
        for name, path in engines.items():
            assert Sidecar.read(path).engine.precision == name
            assert Sidecar.read(path).spec == spec
        self.timed = list(engines)
        return times(**self.shares)


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (times(bf16=0.6, int8=0.8), ["bf16", "int8", "fp32"]),
        (times(bf16=0.8, int8=0.6), ["int8", "bf16", "fp32"]),
        (times(bf16=1.2, int8=0.8), ["int8", "fp32", "bf16"]),
        (times(bf16=1.2, int8=1.1), ["fp32", "int8", "bf16"]),
        (times(bf16=0.96), ["fp32", "bf16"]),
        (times(bf16=0.7, int8=0.68), ["bf16", "int8", "fp32"]),
        (times(bf16=[0.7] * 7 + [1.4]), ["bf16", "fp32"]),
        (times(bf16=[0.7] * 6 + [1.1, 1.4]), ["fp32", "bf16"]),
        (times(), ["fp32"]),
    ],
    ids=[
        "bf16",
        "int8",
        "bf16 slower than fp32",
        "both slower",
        "hardly faster",
        "both the same",
        "one turn disturbed",
        "two turns the other way round",
        "alone",
    ],
)
def test_only_what_is_faster_beyond_the_noise_goes_first(found: Times, order: list[str]) -> None:
    assert fastest_first(found) == order


def test_what_is_not_tried_is_said(monkeypatch: pytest.MonkeyPatch, plate: Path) -> None:
    monkeypatch.setattr("export.fastest.has_bf16", lambda: False)
    builders, left_out = builders_here(Pictures())
    assert list(builders) == ["fp32"]
    assert "bf16 is not tried: this processor" in left_out[0]
    assert "int8 is not tried: found no good pictures" in left_out[1]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    builders, left_out = builders_here(Pictures(data=plate, category="plate"))
    assert list(builders) == ["fp32"]
    assert "pip install 'stlm-edge[openvino-int8]'" in left_out[1]


def in_bf16_or_fp32(source: Path, folder: Path, clock: Clock) -> Fastest:
    return export_fastest(source, folder / "plate.xml", timer=clock)


@needs_bf16
@pytest.mark.heavy
def test_fastest_is_published_alone(traced_engine: Path, tmp_path: Path) -> None:
    found = in_bf16_or_fp32(traced_engine, tmp_path, clock := Clock(bf16=0.5))
    assert clock.timed == ["fp32", "bf16"]
    assert (found.precision, found.reason) == ("bf16", "the fastest of this machine")
    record = Sidecar.read(tmp_path / "plate.xml").engine
    assert record.precision == "bf16"
    assert record.gate == found.gate
    assert sorted(files(tmp_path)) == WHOLE
    assert "bf16  0.50 [0.50, 0.50]  verified" in found.lines
    assert "fp32  1.00 [1.00, 1.00]  not judged" in found.lines
    assert found.lines[-1].startswith("int8 is not tried")


@needs_bf16
@pytest.mark.heavy
def test_what_the_gate_refuses_gives_way(traced_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "bf16", LIMITS["fp32"])
    found = in_bf16_or_fp32(traced_engine, tmp_path, Clock(bf16=0.5))
    assert found.reason == "since the gate refuses bf16, which this machine is faster in"
    assert found.precision == Sidecar.read(tmp_path / "plate.xml").engine.precision == "fp32"
    assert found.gate.verified
    assert sorted(files(tmp_path)) == WHOLE  # nothing of the refused one
    assert "bf16  0.50 [0.50, 0.50]  refused (openvino: largest map error is " in "\n".join(found.lines)
    assert "limits of bf16" in "\n".join(found.lines)


@needs_bf16
@pytest.mark.heavy
def test_slower_one_is_not_even_judged(traced_engine: Path, tmp_path: Path) -> None:
    found = in_bf16_or_fp32(traced_engine, tmp_path, Clock(bf16=0.97))
    assert (found.precision, found.reason) == ("fp32", "since nothing is faster on this machine by more than the noise")
    assert "bf16  0.97 [0.97, 0.97]  not judged" in found.lines
    assert not any(line.startswith("limits of bf16") for line in found.lines)


@pytest.mark.heavy
def test_machine_of_one_precision_says_so(traced_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.fastest.has_bf16", lambda: False)
    found = in_bf16_or_fp32(traced_engine, tmp_path, Clock())
    assert (found.precision, found.reason) == ("fp32", "since no other precision can be tried here")


@needs_bf16
@pytest.mark.heavy
def test_where_nothing_is_accepted_the_old_engine_stays(
    traced_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bf16_or_fp32(traced_engine, tmp_path, Clock(bf16=0.5))
    before = files(tmp_path)
    monkeypatch.setitem(LIMITS, "bf16", IMPOSSIBLE)
    monkeypatch.setitem(LIMITS, "fp32", IMPOSSIBLE)
    with pytest.raises(VerificationError, match=r"plate\.xml is NOT VERIFIED") as refused:
        in_bf16_or_fp32(traced_engine, tmp_path, Clock(bf16=0.5))
    assert sum(line.startswith("limits of ") for line in refused.value.lines) == 2
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    kept = unverified_name(tmp_path / "plate.xml")
    assert Sidecar.read(kept).engine.precision == "fp32"


@needs_bf16
@pytest.mark.heavy
def test_what_cannot_be_compared_is_no_refusal(traced_engine: Path, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="is not the network of the engine"):
        export_fastest(traced_engine, tmp_path / "plate.xml", pictures=Pictures(reference=PLATE), timer=Clock(bf16=0.5))
    assert files(tmp_path) == {}


@pytest.mark.heavy
def test_graph_that_has_its_precision_already_is_refused_before_anything_is_timed(engine: Path, tmp_path: Path) -> None:
    from export.graph.graph import PrecisionRecord, read_graph

    graph = read_graph(engine)
    graph.with_model(graph.model, PrecisionRecord("fp16")).save(tmp_path / "half.onnx")
    with pytest.raises(ConfigError, match="is in fp16 already"):
        export_fastest(tmp_path / "half.onnx", tmp_path / "half.xml", timer=(clock := Clock()))
    assert clock.timed == []


@pytest.mark.slow
def test_int8_is_calibrated_in_full_when_it_is_fastest(
    traced_engine: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.fastest.has_bf16", lambda: False)
    pictures = Pictures(calibration=good, calibration_images=5)
    found = export_fastest(traced_engine, tmp_path / "plate.xml", pictures=pictures, timer=(clock := Clock(int8=0.6)))
    assert clock.timed == ["fp32", "int8"]
    record = Sidecar.read(tmp_path / "plate.xml").engine
    assert found.precision == record.precision == "int8"
    assert record.calibration is not None
    assert record.calibration.images == 5  # one was enough to time it
    assert sorted(files(tmp_path)) == WHOLE


@pytest.mark.slow
@pytest.mark.alone
def test_command_measures_judges_and_says_what_it_took(
    traced_engine: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plate.xml"
    arguments = ["--precision", "auto", "--calibration", str(good), "--calibration-images", "3"]
    assert main(["openvino", str(traced_engine), "-o", str(path), *arguments]) == 0
    backend, sidecar = open_engine(path)
    backend.close()
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"{path}: {sidecar.engine.precision}, ")
    assert "machine" in last
    assert last.endswith("; verified on 8 pictures")
    assert sorted(files(tmp_path)) == WHOLE
