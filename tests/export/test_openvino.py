"""OpenVINO's own files: written, opened in their record's precision, refused when they do not belong together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest

from export.__main__ import main
from export.graph.graph import Graph, PrecisionRecord
from export.openvino import OpenVinoBuilder, Speed, measure_speed, quantise
from export.pipeline import export
from runtime.backends import open_backend, open_engine
from runtime.backends.openvino import has_bf16
from stlm_edge.errors import ConfigError, EngineError, OutputError
from stlm_edge.files import sha256
from stlm_edge.plate.part import render_part
from stlm_edge.sidecar import Sidecar, engine_sha256

from .conftest import SIZE, copied

pytestmark = pytest.mark.heavy

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no bfloat16")


@pytest.fixture(scope="module")
def source(traced_engine: Path) -> Path:
    return traced_engine


@pytest.fixture(scope="module")
def engine(graph: Graph, make_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """In FP32."""
    return make_once("xml", lambda folder: OpenVinoBuilder().build(graph, folder / "plate.xml")) / "plate.xml"


def pictures(count: int = 4) -> list[np.ndarray]:
    kinds = (None, "scratch", "chip", "stain")
    return [
        render_part(np.random.default_rng(seed), size=SIZE, defect=kinds[seed % len(kinds)]).image[None]
        for seed in range(count)
    ]


def answers(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Maps and scores of all pictures."""
    with open_engine(path)[0] as backend:
        found = [backend.infer(picture) for picture in pictures()]
    return np.concatenate([maps for maps, _ in found]), np.concatenate([scores for _, scores in found])


def reference(source: Path) -> tuple[np.ndarray, np.ndarray]:
    with open_engine(source, backend="onnxruntime")[0] as backend:
        found = [backend.infer(picture) for picture in pictures()]
    maps, scores = (np.concatenate(side) for side in zip(*found, strict=True))
    assert maps.std() > 0.01  # or nothing would be compared
    return maps, scores


def test_fp32_gives_onnx_runtimes_answers(source: Path, engine: Path) -> None:
    (maps, scores), (wanted_maps, wanted_scores) = answers(engine), reference(source)
    np.testing.assert_allclose(maps, wanted_maps, atol=1e-4)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-4)


def test_record_says_what_was_made_of_what(source: Path, engine: Path) -> None:
    sidecar = Sidecar.read(engine)
    assert sidecar.spec == Sidecar.read(source).spec
    record = sidecar.engine
    assert (record.product, record.device, record.precision) == ("openvino", "cpu", "fp32")
    assert record.onnx_sha256 == sha256(source)
    assert record.engine_sha256 == engine_sha256(engine)


def test_files_say_nothing_about_this_machine(source: Path, engine: Path) -> None:
    text = engine.read_text()
    assert str(source.parent) not in text
    assert str(engine.parent) not in text


def test_checkpoint_is_exported_in_one_go(source: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "plate.xml"
    assert main(["openvino", str(small_checkpoint), "-o", str(path)]) == 0
    np.testing.assert_allclose(answers(path)[0], reference(source)[0], atol=1e-4)


def test_several_pictures_at_once(batched: Graph, tmp_path: Path) -> None:
    OpenVinoBuilder().build(batched, tmp_path / "batched.xml")
    with open_engine(tmp_path / "batched.xml")[0] as backend:
        _, together = backend.infer(np.concatenate(pictures()))
        alone = [backend.infer(picture)[1][0] for picture in pictures()]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_fp16_halves_the_weights_and_hardly_moves_answers(
    source: Path, graph: Graph, engine: Path, tmp_path: Path
) -> None:
    path = tmp_path / "half.xml"
    OpenVinoBuilder("fp16").build(graph, path)
    assert path.with_suffix(".bin").stat().st_size < 0.6 * engine.with_suffix(".bin").stat().st_size
    (maps, scores), (wanted_maps, wanted_scores) = answers(path), reference(source)
    assert 0 < np.abs(maps - wanted_maps).max() < 0.3
    assert np.abs(scores - wanted_scores).max() < 0.1


@needs_bf16
def test_bf16_is_calculated_as_its_record_says(graph: Graph, engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "brain.xml"
    OpenVinoBuilder("bf16").build(graph, path)
    assert path.with_suffix(".bin").read_bytes() == engine.with_suffix(".bin").read_bytes()
    # The same weights, and yet the answers are those of bfloat16.
    assert 1e-4 < np.abs(answers(path)[0] - answers(engine)[0]).max() < 0.6


def test_bf16_is_refused_by_a_processor_without(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("runtime.backends.openvino", "export.openvino"):
        monkeypatch.setattr(f"{place}.has_bf16", lambda: False)
    spec = Sidecar.read(engine).spec
    with pytest.raises(EngineError, match=r"this processor does not have; .*--precision auto"):
        open_backend(engine, spec=spec, precision="bf16")
    with pytest.raises(EngineError, match="this processor does not have"):
        OpenVinoBuilder("bf16")


@pytest.mark.slow
def test_int8_is_calibrated_on_good_pictures(
    source: Path, engine: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "int8.xml"
    arguments = ["--precision", "int8", "--calibration", str(good), "--calibration-images", "5", "--seed", "3"]
    assert main(["openvino", str(source), "-o", str(path), *arguments]) == 0
    record = Sidecar.read(path).engine
    assert record.precision_by_class == {"MatMul": "int8", "other": "fp32"}
    assert record.calibration is not None
    assert (record.calibration.images, record.calibration.seed) == (5, 3)
    assert "nncf" in record.version
    assert path.with_suffix(".bin").stat().st_size < engine.with_suffix(".bin").stat().st_size
    (maps, scores), (wanted_maps, wanted_scores) = answers(path), reference(source)
    assert 1e-4 < np.abs(maps - wanted_maps).max() < 0.3
    assert np.abs(scores - wanted_scores).max() < 0.1
    printed = capsys.readouterr().out
    assert "time on this machine: int8" in printed
    assert f"{path}: int8; verified on 8 pictures" in printed


def test_int8_quantises_products_and_no_convolution(source: Path, good: Path) -> None:
    spec = Sidecar.read(source).spec
    quantised = quantise(openvino.Core().read_model(source), sorted(good.iterdir())[:3], spec=spec)

    def inputs_of(kind: str) -> list[str]:
        found = [operation for operation in quantised.get_ops() if operation.get_type_name() == kind]
        return [value.get_source_output().get_node().get_type_name() for node in found for value in node.inputs()]

    assert inputs_of("MatMul").count("FakeQuantize") > 10
    assert "FakeQuantize" not in inputs_of("Convolution")
    assert "FakeQuantize" not in inputs_of("GroupConvolution")


@pytest.mark.parametrize(
    ("speed", "words"),
    [
        (Speed("int8", {"int8": 1.1}), "NOT FASTER than fp32"),
        (Speed("int8", {"int8": 0.97}), "NOT FASTER than fp32"),
        (Speed("int8", {"int8": 0.9, "bf16": 0.7}), "SLOWER than bf16"),
        (Speed("fp16", {"fp16": 1.0}), "calculates in fp32 all the same"),
    ],
)
def test_what_is_not_worth_its_precision_is_said_plainly(speed: Speed, words: str) -> None:
    assert words in "\n".join(speed.lines())


def test_engine_that_pays_gets_no_objection() -> None:
    (only,) = Speed("int8", {"int8": 0.7, "bf16": 0.68}).lines()
    assert "0.70 of fp32's, bf16 0.68" in only


@pytest.mark.alone
def test_engine_is_about_as_fast_as_itself(graph: Graph, engine: Path) -> None:
    found = measure_speed(engine, graph, precision="fp16")
    assert 0.3 < found.time_ratios["fp16"] < 3


def test_graph_without_weights_is_refused(engine: Path, tmp_path: Path) -> None:
    path = copied(engine, tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(EngineError, match=r"has no plate\.bin beside it"):
        open_engine(path)
    with pytest.raises(EngineError, match=r"has no plate\.bin beside it"):
        open_backend(path, spec=Sidecar.read(path).spec)


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_half_of_another_export_is_refused(graph: Graph, engine: Path, tmp_path: Path, suffix: str) -> None:
    """What a kill between the writes leaves behind: one new file beside the old ones."""
    path = copied(engine, tmp_path)
    OpenVinoBuilder("fp16").build(graph, tmp_path / "other.xml")
    (tmp_path / f"other{suffix}").replace(tmp_path / f"plate{suffix}")
    with pytest.raises(EngineError, match=r"the engine was changed.*stlm export CHECKPOINT -o "):
        open_engine(path)


def test_altered_weights_are_refused(engine: Path, tmp_path: Path) -> None:
    path = copied(engine, tmp_path)
    data = bytearray(path.with_suffix(".bin").read_bytes())
    data[len(data) // 2] ^= 1
    path.with_suffix(".bin").write_bytes(data)
    with pytest.raises(EngineError, match="the engine was changed"):
        open_engine(path)


def test_onnx_runtime_is_no_backend_for_it(engine: Path) -> None:
    with pytest.raises(EngineError, match="onnxruntime cannot run it"):
        open_engine(engine, backend="onnxruntime")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x08"])
def test_file_that_is_not_openvinos(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plate.xml").write_bytes(content)
    with pytest.raises(EngineError, match="is not an OpenVINO file"):
        open_engine(tmp_path / "plate.xml")


def test_truncated_graph_is_refused(engine: Path, tmp_path: Path) -> None:
    path = copied(engine, tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(EngineError, match="openvino cannot open"):
        open_backend(path, spec=Sidecar.read(path).spec)


def test_failed_write_leaves_the_old_engine(
    graph: Graph, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(engine, tmp_path)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("export.openvino.write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        OpenVinoBuilder("fp16").build(graph, path)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


def test_graph_that_has_its_precision_already_is_refused(graph: Graph, tmp_path: Path) -> None:
    graph.with_model(graph.model, PrecisionRecord("fp16")).save(tmp_path / "half.onnx")
    with pytest.raises(ConfigError, match="is in fp16 already; give the checkpoint"):
        export(tmp_path / "half.onnx", tmp_path / "half.xml", builder=OpenVinoBuilder())
    assert [path.name for path in tmp_path.iterdir()] == ["half.onnx"]


def test_int8_needs_pictures(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --calibration"):
        export(source, tmp_path / "a.xml", builder=OpenVinoBuilder("int8"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.onnx", "-o", "a.xml"], "is not a file"),
        (["nothing.safetensors", "-o", "a.xml"], "is no file"),
        (["{source}", "-o", "a.onnx"], "expected .xml"),
        (["{source}", "-o", "/dev/null/a.xml"], "cannot write"),
        (["{source}", "-o", "a.xml", "--precision", "int8", "--calibration", "nowhere"], "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["openvino", *(argument.format(source=source) for argument in arguments)]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("from export.__main__ import main; assert main(['openvino', {source!r}, '-o', 'a.xml']) == 0", "torch"),
        ("from runtime.backends import open_engine, Path; open_engine(Path({engine!r}))[0].close()", "onnx"),
        ("from runtime.backends import open_engine, Path; open_engine(Path({engine!r}))[0].close()", "torch"),
    ],
    ids=["export without torch", "run without onnx", "run without torch"],
)
def test_what_is_not_needed_may_be_missing(
    source: Path, engine: Path, tmp_path: Path, statement: str, missing: str
) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; {statement.format(source=str(source), engine=str(engine))}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
