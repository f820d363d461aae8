"""Settings are measured together, and only those are advised that the gate has verified and nothing dominates."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import export.gate.limits
from benchmarks.accuracy import main as judge_accuracy
from benchmarks.advice import Point, advise, dominates
from benchmarks.record import read
from benchmarks.sizes import _wanted, main
from export.publish import unverified_name
from runtime.backends.openvino import has_bf16
from stlm_edge.errors import SpecError
from stlm_edge.imaging import read_image
from stlm_edge.network.checkpoint import load, resized
from stlm_edge.sidecar import Gate, Limits, Sidecar

from ..export.tiny import checkpoint
from ..runtime.conftest import write_engine
from .drawn_set import draw_set

SIZE = (64, 64)
QUICK = ["--turns", "2", "--runs", "2"]


def point(
    name: str,
    *turns_ms: float,
    aupro: float | None = 0.6,
    image_auroc: float = 0.8,
    verified: bool | None = True,
    size: int = 256,
    trained_at: tuple[int, int] | None = (256, 256),
    precision: str = "fp32",
) -> Point:
    return {
        "name": name,
        "architecture": "stlm-tiny",
        "input_size": [size, size],
        "precision": precision,
        "trained_at": None if trained_at is None else list(trained_at),
        "verified": verified,
        "objections": ["map is off"] * (verified is False),
        "turns_ms": list(turns_ms),
        "p50_ms": turns_ms[0],
        "p95_ms": 2 * turns_ms[0],
        "aupro": aupro,
        "image_auroc": image_auroc,
    }


def test_point_is_dominated_by_one_that_is_faster_in_every_turn_and_as_good() -> None:
    slow = point("slow", 10, 12)
    assert dominates(point("fast", 9, 11), slow)
    assert dominates(point("as good but for rounding", 9, 11, aupro=0.5995), slow)
    assert not dominates(point("once slower", 9, 12), slow)
    assert not dominates(point("misses places", 9, 11, aupro=0.59), slow)
    assert not dominates(point("misses parts", 9, 11, image_auroc=0.79), slow)
    assert not dominates(point("refused", 9, 11, verified=False), slow)
    assert not dominates(point("blank", 9, 11, aupro=None), slow)


def test_advice_names_the_fastest_that_is_nearly_the_best() -> None:
    points = [
        point("small", 5, 5, aupro=0.50, image_auroc=0.80),
        point("middle", 9, 9, aupro=0.695, image_auroc=0.80),
        point("large", 20, 20, aupro=0.70, image_auroc=0.81),
        point("pointless", 30, 30, aupro=0.6, image_auroc=0.7),
        point("refused", 1, 1, aupro=0.9, image_auroc=0.9, verified=False),
        point("strange", 1, 1, aupro=0.9, image_auroc=0.9, verified=None),
    ]
    places, parts, *warnings = advise(points)
    assert places.startswith(
        "For AUPRO take middle: 69.5 in 9.0 ms (p50), the fastest within 1 point of the best (large"
    )
    assert parts.startswith("For image AUROC take small: 80.0 in 5.0 ms (p50), the fastest within 1 point")
    assert warnings == [
        "pointless is dominated: middle is faster and as good.",
        "refused is not advised: the gate refuses it (map is off).",
        "strange is not advised: nobody has compared it with its network (stlm verify).",
    ]


def test_advice_keeps_to_a_budget_of_the_slowest_frames() -> None:
    points = [point("fast", 5, 5, aupro=0.5), point("good", 20, 20, aupro=0.7, image_auroc=0.9)]
    within = [sentence for sentence in advise(points, budget_ms=40) if sentence.startswith("Within 40 ms")]
    assert within == [
        "Within 40 ms good has the best AUPRO: 70.0 in 40.0 ms (p95).",
        "Within 40 ms good has the best image AUROC: 90.0 in 40.0 ms (p95).",
    ]
    assert any("fast has the best AUPRO" in sentence for sentence in advise(points, budget_ms=39))
    assert "None keeps within 9 ms (p95); the fastest, fast, takes 10.0 ms." in advise(points, budget_ms=9)


def test_advised_point_at_another_size_than_trained_needs_its_threshold_anew() -> None:
    (warning,) = [line for line in advise([point("resized", 5, 5, size=512)]) if "threshold" in line]
    assert warning.startswith("resized was trained at 256 x 256")
    assert not any("threshold" in line for line in advise([point("as trained", 5, 5)]))
    assert not any("threshold" in line for line in advise([point("unknown", 5, 5, trained_at=None)]))


def test_nothing_is_advised_where_nothing_is_verified() -> None:
    assert advise([point("refused", 1, 1, verified=False)], budget_ms=5) == [
        "No engine is verified, so none is advised.",
        "refused is not advised: the gate refuses it (map is off).",
    ]


def test_resized_network_has_the_same_weights_and_another_map(tmp_path: Path) -> None:
    trained = load(checkpoint(tmp_path / "tiny.safetensors"))
    other = resized(trained, (96, 128))
    assert (other.spec.input_size, other.spec.map_size) == ((96, 128), (96, 128))
    assert other.spec.weights_sha256 == trained.spec.weights_sha256
    assert other.spec.threshold == trained.spec.threshold
    assert not other.network.training
    with pytest.raises(SpecError, match="multiples of 32"):
        resized(trained, (100, 100))


@pytest.mark.slow
def test_engines_are_built_judged_kept_and_taken_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, work, path = draw_set(tmp_path / "spots"), tmp_path / "work", tmp_path / "sizes.json"
    source = checkpoint(tmp_path / "tiny.safetensors")
    arguments = ["--checkpoint", str(source), "--size", "64", "--work", str(work), "--data", str(data), *QUICK]
    assert main([*arguments, "--images", "4", "--json", str(path)]) == 0
    said = capsys.readouterr().out
    assert next(line for line in said.splitlines() if line.startswith("tiny 64 fp32")).endswith("yes")
    assert "map p99" not in said  # the gate's table goes with the progress
    record = read(path)
    (entry,) = record.details["points"]
    assert record.is_complete
    assert "4 of 5 test pictures" in record.details["data"]
    assert (entry["name"], entry["architecture"], entry["precision"]) == ("tiny 64 fp32", "stlm-tiny", "fp32")
    assert (entry["input_size"], entry["trained_at"]) == ([64, 64], [64, 96])
    assert (entry["verified"], entry["on_frontier"], entry["runs"]) == (True, True, 4)
    assert 0 < entry["p50_ms"] <= entry["p95_ms"]
    assert set(record.measures) == {
        f"tiny 64 fp32 {name}" for name in ("total p50", "image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
    }
    assert len(record.measures["tiny 64 fp32 total p50"].values) == 2
    assert any("trained at 64 x 96" in sentence for sentence in record.details["advice"])

    # The engine gives the answers of the checkpoint that it was built of.
    (engine,), (reference,) = work.glob("*.xml"), work.glob("*.safetensors")
    judged = ["--engine", str(engine), "--reference", str(reference), "--data", str(data), "--json", str(path)]
    assert judge_accuracy(judged) == 0
    network, found = read(path).details["engines"]
    assert (network["library"], network["drift"], found["library"]) == ("pytorch", None, "openvino")
    assert found["drift"]["reference"] == reference.name
    assert found["drift"]["map_max"] < 1e-4
    assert found["image_auroc"] == network["image_auroc"]

    # What is there is taken as it is.
    written = engine.stat().st_mtime_ns
    assert main([*arguments, "--json", str(path)]) == 0
    assert engine.stat().st_mtime_ns == written

    # A damaged one is built again. If the gate refuses it then, it is kept, said to be refused, and not built again.
    engine.write_bytes(engine.read_bytes() + b"\n")
    strict = dataclasses.replace(export.gate.limits.LIMITS["fp32"], p99_map_error=-1.0)
    monkeypatch.setitem(export.gate.limits.LIMITS, "fp32", strict)
    assert main([*arguments, "--json", str(path)]) == 0
    refused = unverified_name(engine)
    (entry,) = read(path).details["points"]
    assert entry["verified"] is False
    assert "99th percentile" in entry["objections"][0]
    written = refused.stat().st_mtime_ns
    assert main([*arguments, "--json", str(path)]) == 0
    assert refused.stat().st_mtime_ns == written


def test_each_checkpoint_gets_each_size_and_precision(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "run" / "model.safetensors")
    sizes, precisions = [(64, 64), (64, 128)], ["fp32", "int8"]
    names = [setting.name for setting in _wanted(source, sizes, precisions)]
    assert names == ["run 64 fp32", "run 64 int8", "run 64x128 fp32", "run 64x128 int8"]
    assert [setting.size for setting in _wanted(source, [], ["fp32"])] == [(64, 96)]


@pytest.mark.heavy
def test_refused_engine_is_shown_and_not_advised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = draw_set(tmp_path / "spots")
    engines = []
    for name, verified in (("good.onnx", True), ("bad.onnx", False), ("new.onnx", None)):
        engine = write_engine(tmp_path / name)
        sidecar = Sidecar.read(engine)
        gate = None if verified is None else Gate(verified, True, "pytorch", Limits(1, 1, 0, 1, 0, 1), (), ("off",))
        dataclasses.replace(sidecar, engine=dataclasses.replace(sidecar.engine, gate=gate)).write(engine)
        engines += ["--engine", str(engine)]
    path, plot = tmp_path / "sizes.json", tmp_path / "plot.png"
    arguments = [*engines, "--data", str(data.parent), "--category", data.name, "--budget-ms", "1e6", *QUICK]
    assert main([*arguments, "--plot", str(plot), "--json", str(path)]) == 0
    assert read_image(plot).std() > 10
    details = read(path).details
    assert [entry["verified"] for entry in details["points"]] == [True, False, None]
    assert [entry["on_frontier"] for entry in details["points"]] == [True, False, False]
    assert details["points"][0]["trained_at"] is None
    assert details["points"][0]["image_auroc"] == pytest.approx(4 / 6, abs=1e-6)
    advice = "\n".join(details["advice"])
    assert "take good.onnx" in advice
    assert "bad.onnx is not advised: the gate refuses it (off)." in advice
    assert "Within 1e+06 ms good.onnx has the best AUPRO" in advice
    assert "take bad.onnx" not in advice
    assert "REFUSED" in capsys.readouterr().out


def test_bad_settings_are_one_line_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, work = draw_set(tmp_path / "spots"), tmp_path / "work"
    source = checkpoint(tmp_path / "tiny.safetensors")
    good = ["--checkpoint", str(source), "--data", str(data), "--work", str(work)]
    cases = [
        ([*good, "--size", "100"], "100 x 100, expected multiples of 32"),
        ([*good, "--plot", str(tmp_path / "plot.jpg")], "expected .png or .svg"),
        ([*good, "--size", "64", "--size", "64"], "two subjects of the name 'tiny 64 fp32'"),
        ([*good, "--checkpoint", str(tmp_path / "none.safetensors")], "none.safetensors is no file"),
        ([*good, "--engine", str(tmp_path / "none.xml")], "none.xml is not a file"),
        ([*good, "--category", "plate"], "no category 'plate'"),
    ]
    if not has_bf16():
        cases.append(([*good, "--precision", "bf16"], "bf16, which this processor does not have"))
    for arguments, said in cases:
        assert main(arguments) == 1
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert said in errors[0]
        assert not work.exists()


@pytest.mark.heavy
def test_ready_engines_need_neither_torch_nor_onnx() -> None:
    code = "import sys, benchmarks.latency, benchmarks.sizes; print({'torch', 'onnx', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to compare"),
        (["--checkpoint", "model.safetensors"], "needs --work"),
        (["--checkpoint", "model.safetensors", "--size", "big"], "is no size"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--data", "tiles"]) == 2
    assert said in capsys.readouterr().err
