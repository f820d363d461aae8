from __future__ import annotations

import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.external_data_helper
import openvino
import pytest

from runtime.backends import open_backend, open_engine
from runtime.detector import Detector
from stlm_edge.errors import EngineError, SpecError
from stlm_edge.files import sha256
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.signal_stack import signal_stack

from .conftest import INPUT_SIZE, MAP_SIZE, SPEC, brightness_graph, write_engine

Name = Literal["openvino", "onnxruntime"]
BOTH: tuple[Name, ...] = ("openvino", "onnxruntime")


def random_batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, *INPUT_SIZE, 3), np.uint8)


@pytest.mark.parametrize("name", BOTH)
def test_map_and_score_are_what_the_graph_computes(engine: Path, name: Name) -> None:
    batch = random_batch()
    grey = batch[0].astype(np.float64).mean(axis=-1) / 255
    expected = grey.reshape(MAP_SIZE[0], 2, MAP_SIZE[1], 2).mean(axis=(1, 3))
    backend, sidecar = open_engine(engine, backend=name)
    with backend:
        maps, scores = backend.infer(batch)
    assert sidecar.spec == SPEC
    assert maps.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)
    np.testing.assert_allclose(scores, [expected.max()], atol=1e-6)


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("name", BOTH)
def test_two_batches_in_hand_get_their_own_answers(engine: Path, name: Name, side_by_side: bool) -> None:
    """A third has to wait until the first one's answer was asked for."""
    dark, bright = (np.full((1, *INPUT_SIZE, 3), value, np.uint8) for value in (51, 204))
    with open_engine(engine, backend=name, side_by_side=side_by_side)[0] as backend:
        first, second = backend.submit(dark), backend.submit(bright)
        with pytest.raises(EngineError, match="2 batches in hand"):
            backend.submit(dark)
        answers = [first.result(), second.result(), backend.submit(dark).result()]
    np.testing.assert_allclose([answer.scores[0] for answer in answers], [0.2, 0.8, 0.2], atol=1e-6)
    assert all(answer.infer_ms > 0 for answer in answers)


@pytest.mark.parametrize("options", [{}, {"side_by_side": True}, {"tile": (64, 128)}])
def test_openvino_infers_two_at_a_time_only_where_frames_never_end(
    engine: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame by itself has its verdict the sooner the more cores work on it."""
    compiled = []
    compile_model = openvino.Core.compile_model

    def spy(*arguments: Any) -> Any:
        compiled.append(compile_model(*arguments))
        return compiled[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    with Detector.open(engine, backend="openvino", **options):
        assert [int(one.get_property("NUM_STREAMS")) for one in compiled] == [2 if options else 1]


@pytest.mark.parametrize("name", BOTH)
def test_backend_closes_with_a_batch_in_hand(engine: Path, name: Name) -> None:
    with open_engine(engine, backend=name)[0] as backend:
        backend.submit(random_batch())


def test_backends_agree(engine: Path) -> None:
    answers = []
    for name in BOTH:
        with open_engine(engine, backend=name)[0] as backend:
            answers.append(backend.infer(random_batch()))
    (maps, scores), (other_maps, other_scores) = answers
    np.testing.assert_allclose(maps, other_maps, atol=1e-5)
    np.testing.assert_allclose(scores, other_scores, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_answer_survives_the_next_inference(engine: Path, name: Name) -> None:
    with open_engine(engine, backend=name)[0] as backend:
        maps, _ = backend.infer(random_batch())
        kept = maps.copy()
        backend.infer(np.zeros((1, *INPUT_SIZE, 3), np.uint8))
    np.testing.assert_array_equal(maps, kept)


@pytest.mark.parametrize("name", BOTH)
def test_graph_without_a_sidecar_is_opened_by_a_specification(tmp_path: Path, name: Name) -> None:
    path = tmp_path / "bare.onnx"
    onnx.save(brightness_graph(), path)
    with open_backend(path, spec=SPEC, backend=name) as backend:
        assert backend.name == name


def test_openvino_is_preferred_and_the_choice_is_logged(engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), open_engine(engine)[0] as backend:
        assert backend.name == "openvino"
    assert "runs on openvino" in caplog.text


def test_onnxruntime_serves_where_openvino_is_not_installed(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with open_engine(engine)[0] as backend:
        assert backend.name == "onnxruntime"


def test_no_library_at_all_says_what_to_install(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"pip install 'stlm-edge\[openvino\]'"):
        open_engine(engine)


@pytest.mark.parametrize("name", BOTH)
def test_library_asked_for_and_not_installed_is_no_reason_for_another(
    engine: Path, monkeypatch: pytest.MonkeyPatch, name: Name
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"runtime.backends.{name}", raising=False)
    with pytest.raises(EngineError, match=rf"pip install 'stlm-edge\[{name}\]'"):
        open_engine(engine, backend=name)


@pytest.mark.parametrize("swapped", [False, True], ids=["key first", "value first"])
@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/tmp/weights.bin"])
def test_engine_that_keeps_weights_in_another_file_is_refused(tmp_path: Path, place: str, swapped: bool) -> None:
    """Protocol buffers may write the fields of an entry in any order."""
    model = brightness_graph()
    for tensor in model.graph.initializer:
        tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location=place)
    model.graph.initializer[0].ClearField("raw_data")
    path = tmp_path / "plate.onnx"
    key, value = b"\n\x08location", b"\x12" + bytes([len(place)]) + place.encode()
    content = model.SerializeToString()
    assert content.count(key + value) == 1
    path.write_bytes(content.replace(key + value, value + key) if swapped else content)
    record = EngineRecord("onnx", "1", "any", "fp32", sha256(path))
    Sidecar(spec=SPEC, engine=record).write(path)
    with pytest.raises(EngineError, match="keeps weights in other files"):
        open_engine(path)


def test_missing_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"is not a file.*stlm export CHECKPOINT -o "):
        open_engine(tmp_path / "plate.onnx")


@pytest.mark.parametrize("name", ["plate.pt", "plate"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x08")
    with pytest.raises(EngineError, match=r"expected \.plan, \.onnx"):
        open_engine(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_file_that_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plate.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is not an ONNX file"):
        open_engine(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "plate.onnx")
    path.chmod(0)
    with pytest.raises(EngineError, match="cannot be read"):
        open_engine(path)


def test_missing_sidecar(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "plate.onnx")
    Sidecar.path_for(path).unlink()
    with pytest.raises(SpecError, match=r"has no plate\.onnx\.json"):
        open_engine(path)


def test_damaged_sidecar(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "plate.onnx")
    sidecar = Sidecar.path_for(path)
    sidecar.write_text(sidecar.read_text()[:50])
    with pytest.raises(SpecError, match="not JSON"):
        open_engine(path)


def test_engine_changed_after_export(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "plate.onnx")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineError, match="the engine was changed"):
        open_engine(path)


def test_engine_without_threshold(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "plate.onnx", spec=dataclasses.replace(SPEC, threshold=None))
    with pytest.raises(SpecError, match="has no threshold"):
        open_engine(path)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("change", [{"input_size": (64, 64)}, {"map_size": (64, 128)}])
def test_graph_that_does_not_match_its_sidecar(tmp_path: Path, name: Name, change: dict[str, tuple[int, int]]) -> None:
    path = write_engine(tmp_path / "plate.onnx", spec=dataclasses.replace(SPEC, **change))
    with pytest.raises(EngineError, match=r"image uint8 \(1, 64, 128, 3\).*its sidecar expects"):
        open_engine(path, backend=name)


@pytest.mark.parametrize("name", BOTH)
def test_graph_that_leaves_a_dimension_open(tmp_path: Path, name: Name) -> None:
    model = brightness_graph()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    path = write_engine(tmp_path / "plate.onnx", model=model)
    with pytest.raises(EngineError, match=r"image uint8 \(-1, 64, 128, 3\)"):
        open_engine(path, backend=name)


@pytest.mark.parametrize("name", BOTH)
def test_onnx_file_that_the_library_cannot_load(tmp_path: Path, name: Name) -> None:
    path = write_engine(tmp_path / "plate.onnx")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(EngineError, match=f"{name} cannot open"):
        open_backend(path, spec=SPEC, backend=name)


@pytest.mark.parametrize("name", BOTH)
def test_answer_that_is_not_finite_is_an_error_and_not_good(tmp_path: Path, name: Name) -> None:
    path = write_engine(tmp_path / "plate.onnx", model=brightness_graph(factor=float("nan")))
    with open_engine(path, backend=name)[0] as backend, pytest.raises(EngineError, match="not finite"):
        backend.infer(random_batch())


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (2, *INPUT_SIZE, 3), (*INPUT_SIZE, 3)])
def test_batch_of_another_shape(engine: Path, shape: tuple[int, ...]) -> None:
    with open_engine(engine)[0] as backend, pytest.raises(EngineError, match="expects"):
        backend.infer(np.zeros(shape, np.uint8))


def test_batch_of_another_type(engine: Path) -> None:
    with open_engine(engine)[0] as backend, pytest.raises(EngineError, match="type float32"):
        backend.infer(random_batch().astype(np.float32))


def test_closed_engine(engine: Path) -> None:
    backend, _ = open_engine(engine)
    backend.close()
    backend.close()
    with pytest.raises(EngineError, match="has been closed"):
        backend.infer(random_batch())


def test_signals_still_find_their_stack_after_openvino(tmp_path: Path) -> None:
    """Without it, Ctrl-C or the end of a child process ends the program with a segmentation fault."""
    before = signal_stack()
    backend, _ = open_engine(write_engine(tmp_path / "plate.onnx"), backend="openvino")
    with backend:
        backend.infer(np.zeros((1, *INPUT_SIZE, 3), np.uint8))
        assert signal_stack() == before
    assert signal_stack() == before
