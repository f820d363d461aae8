"""The stages of an engine on a processor, beside what it can reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13

from benchmarks.openvino_profile import Profile
from benchmarks.processor_peaks import Peaks
from benchmarks.record import read
from benchmarks.stages import main
from stlm_edge.sidecar import EngineRecord, Sidecar, engine_sha256
from stlm_edge.spec import ModelSpec

SIDE, CHANNELS = 64, 8


def write_network(path: Path, *, batch: int = 1) -> Path:
    """One convolution of a stage and one product of another, named as exported graphs name them."""
    rng = np.random.default_rng(0)
    image = opset13.parameter([batch, SIDE, SIDE, 3], np.uint8, name="image")
    image.output(0).set_names({"image"})
    pixels = opset13.transpose(opset13.convert(image, np.float32), [0, 3, 1, 2])
    weights = rng.standard_normal((CHANNELS, 3, 3, 3), dtype=np.float32)
    convolved = opset13.convolution(pixels, opset13.constant(weights), [2, 2], [1, 1], [1, 1], [1, 1])
    convolved.set_friendly_name("plain.backbone.patch_embed.conv1.conv|conv2d")
    rows = opset13.reshape(convolved, [CHANNELS, SIDE * SIDE // 4], False)
    product = opset13.matmul(
        rows, opset13.constant(rng.standard_normal((16, SIDE * SIDE // 4), dtype=np.float32)), False, True
    )
    product.set_friendly_name("decoder.first|MatMul")
    anomaly_map = opset13.sigmoid(opset13.reshape(product, [1, CHANNELS, 16], False))
    score = opset13.reduce_max(anomaly_map, [1, 2])
    for node, name in ((anomaly_map, "anomaly_map"), (score, "score")):
        node.output(0).set_names({name})
    openvino.save_model(openvino.Model([anomaly_map, score], [image]), path, compress_to_fp16=False)
    spec = ModelSpec("part", "none", (SIDE, SIDE), (CHANNELS, 16), "0" * 64)
    record = EngineRecord("openvino", openvino.__version__, "cpu", "fp32", engine_sha256(path))
    Sidecar(spec=spec, engine=record).write(path)
    return path


def test_each_stage_has_its_flops_and_a_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine, path = write_network(tmp_path / "net.xml"), tmp_path / "stages.json"
    assert main(["--engine", str(engine), "--turns", "2", "--runs", "2", "--json", str(path)]) == 0
    assert "GFLOP/s" in capsys.readouterr().out
    record = read(path)
    stages = {stage["name"]: stage for stage in record.details["stages"]}
    assert stages["patch embed"]["gflop"] == pytest.approx(2 * CHANNELS * (SIDE // 2) ** 2 * 27 / 1e9)
    assert stages["decoder"]["gflop"] == pytest.approx(2 * CHANNELS * 16 * SIDE * SIDE / 4 / 1e9)
    assert [stage for stage in stages if stage in ("patch embed", "decoder")] == ["patch embed", "decoder"]
    peak = record.details["peak"]
    for stage in stages.values():
        assert stage["floor_ms"] >= max(stage["gflop"] / peak["gflop_s"], 0) * 1e3 * 0.999
    assert len(record.measures["total"].values) == 2
    assert record.measures["decoder"].median == pytest.approx(stages["decoder"]["measured_ms"])


def test_stages_add_up_to_the_total(tmp_path: Path) -> None:
    engine = write_network(tmp_path / "net.xml")
    profile = Profile(engine, spec=Sidecar.read(engine).spec, precision="fp32")
    profile.take_turn(2)
    peaks = Peaks(threads=profile.threads)
    peaks.take_turn()
    # What has no product and moves next to nothing has no floor, and no row; here nothing takes noticeable time.
    assert sum(stage.measured_ms for stage in profile.stages(peaks)) == pytest.approx(profile.totals_ms[0], rel=0.05)


@pytest.mark.parametrize(
    ("name", "said"), [("net.plan", "python -m export report"), ("none.xml", "none.xml"), ("net", "expected .xml")]
)
def test_other_engines_are_one_line(tmp_path: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", str(tmp_path / name)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_engine_of_any_number_of_pictures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = write_network(tmp_path / "net.xml", batch=-1)
    assert main(["--engine", str(engine), "--turns", "1", "--runs", "1"]) == 1
    assert "without --max-batch" in capsys.readouterr().err
