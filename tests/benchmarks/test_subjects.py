"""All ways of PyTorch compute the same, and every subject names the same stages of the same pictures."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import network_subjects, subjects
from benchmarks.cells import STAGES
from benchmarks.network_subjects import authors_way, inspection, network_subject, network_work
from benchmarks.onnxruntime_cuda import OnnxRuntimeCudaBackend, require_provider
from benchmarks.record import Device
from benchmarks.subjects import Pictures, Way, batch_of, engine_subject, open_engine_work
from runtime.backends.onnxruntime import OnnxRuntimeBackend
from stlm_edge.errors import ConfigError, DataError, EngineError
from stlm_edge.imaging import write_image
from stlm_edge.network.checkpoint import Checkpoint, load
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import architecture_named
from stlm_edge.network.inference import InferencePath
from stlm_edge.network.stlm import Stlm
from stlm_edge.plate.part import render_part

from ..export.tiny import PLATE, SIZE
from ..runtime.conftest import INPUT_SIZE, SPEC, picture, write_engine
from .engines import write_batch_engine

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    loaded = load(PLATE)
    return Checkpoint(loaded.network, dataclasses.replace(loaded.spec, input_size=SIZE, map_size=SIZE), {})


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    kinds = (None, "stain", "missing_hole")
    parts = [render_part(np.random.default_rng(index), size=SIZE, defect=kind) for index, kind in enumerate(kinds)]
    return torch.from_numpy(np.stack([part.image for part in parts]))


@pytest.mark.parametrize(
    ("way", "tolerance"), [("eager", 1e-4), ("batched", 1e-6), ("channels-last", 1e-4), ("half", 0.1)]
)
def test_each_way_gives_the_inspectors_map_and_score(checkpoint, images, way, tolerance):
    with torch.no_grad():
        wanted, wanted_score = InferencePath(checkpoint.network, checkpoint.spec)(images)
    full, score = inspection(checkpoint, Way.parse(way), CPU)(images)
    assert full.dtype == score.dtype == torch.float32
    assert wanted.std() > 0.01
    torch.testing.assert_close(full, wanted, atol=tolerance, rtol=0)
    torch.testing.assert_close(score, wanted_score, atol=tolerance, rtol=0)
    if way == "half":
        assert not torch.equal(full, wanted)


@pytest.mark.slow
def test_compiled_network_gives_the_same(checkpoint, images, monkeypatch):
    """What PyTorch traces is run as it is: its own compiler takes minutes with the C++ that it writes."""
    compiled = torch.compile
    modes = []

    def traced(module, *, mode):
        modes.append(mode)
        return compiled(module, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", traced)
    wanted, _ = inspection(checkpoint, Way.parse("batched"), CPU)(images)
    full, _ = inspection(checkpoint, Way.parse("compile"), CPU)(images)
    torch.testing.assert_close(full, wanted, atol=1e-5, rtol=0)
    assert modes == [None]


@pytest.mark.parametrize(("way", "calls"), [("eager", [1] * 6), ("batched", [6])])
def test_authors_way_asks_the_decoder_for_each_picture_of_each_stream(checkpoint, images, way, calls):
    asked = []
    hook = checkpoint.network.decoder.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0])))
    inspection(checkpoint, Way.parse(way), CPU)(images)
    hook.remove()
    assert asked == calls


def test_authors_way_is_refused_for_what_they_have_not_published(checkpoint):
    other = Stlm(architecture_named("stlm-tiny"), Design(layers="l1"))
    with pytest.raises(ConfigError, match="found a network with layers l1"):
        authors_way(InferencePath(other, checkpoint.spec))


def test_ways_are_parsed_and_named():
    assert Way.parse("eager") == Way("eager")
    assert Way.parse("compile+half") == Way.parse("batched+half+compile") == Way("batched", ("half", "compile"))
    assert [str(Way.parse(way)) for way in ("eager", "eager+tf32", "batched", "half+compile")] == [
        "authors' way",
        "authors' way tf32",
        "PyTorch batched",
        "PyTorch half compile",
    ]
    assert [Way.parse("half").precision(device) for device in ("cpu", "cuda")] == ["bf16", "fp16"]
    assert Way.parse("eager+tf32").precision("cuda") == "tf32"
    for wrong in ("", "fast", "half+half", "half+eager", "eager+batched", "eager+cuda-graph"):
        with pytest.raises(ConfigError, match="found the way"):
            Way.parse(wrong)


@pytest.mark.parametrize("way", ["eager+tf32", "half+cuda-graph"])
def test_way_of_a_gpu_is_refused_on_the_processor(way):
    with pytest.raises(ConfigError, match="expected a GPU"):
        network_subject(Path("none"), way=way)


def test_network_is_timed_from_frame_to_verdict(checkpoint):
    subject = network_work(checkpoint, Way.parse("batched"), device="cpu", images=(picture(90),), batch=2)
    stages = subject.run(0)
    assert tuple(stages) == STAGES
    assert sum(stages[stage] for stage in STAGES[:-1]) == pytest.approx(stages["total"])
    facts = subject.facts
    assert facts["parameters"] == sum(entry.numel() for entry in checkpoint.network.parameters())
    assert (facts["library"], facts["precision"], facts["device"], facts["note"]) == ("pytorch", "fp32", "CPU", None)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_emulated_arithmetic_is_said(checkpoint, monkeypatch, has_bf16):
    here = Device("made up", ("avx2", "amx_bf16") if has_bf16 else ("avx2",), 2)
    monkeypatch.setattr(network_subjects, "this_machine", lambda: here)
    subject = network_work(checkpoint, Way.parse("half"), device="cpu", images=(picture(90),), batch=1)
    note = subject.facts["note"]
    assert note is None if has_bf16 else "emulated" in note


def test_answers_that_are_not_finite_are_said(checkpoint):
    broken = Checkpoint(Stlm(architecture_named("stlm-tiny")).eval(), checkpoint.spec, {})
    torch.nn.init.constant_(broken.network.feature_aggregation.head.out.bias, float("nan"))
    subject = network_work(broken, Way.parse("batched"), device="cpu", images=(picture(90),), batch=1)
    subject.run(0)
    assert "not finite" in subject.facts["note"]


def test_engine_is_timed_by_the_detectors_own_stages(tmp_path):
    engine = write_engine(tmp_path / "plate.onnx")
    with open_engine_work(engine, library="onnxruntime", pictures=Pictures(frame_size=(96, 192)), batch=1) as one:
        stages = one.run(0)
        assert one.facts["device"] == "CPU"
        assert one.facts["input_size"] == list(INPUT_SIZE)
    assert set(stages) == set(STAGES)
    assert stages["upload"] == stages["download"] == 0
    assert 0 < stages["prepare"] + stages["infer"] + stages["decide"] <= stages["total"]


def test_times_of_a_batch_are_for_each_of_its_pictures(tmp_path, checkpoint):
    engine = write_batch_engine(tmp_path / "plate.onnx", max_batch=4)
    drawn = Pictures(frame_size=(96, 192))
    own = network_work(checkpoint, Way.parse("eager"), device="cpu", images=drawn.load(), batch=4)
    with open_engine_work(engine, library="onnxruntime", pictures=drawn, batch=4) as opened:
        for subject in (opened, own):
            start_s = time.perf_counter()
            stages = subject.run(0)
            assert 4 * stages["total"] <= 1e3 * (time.perf_counter() - start_s)


def test_batch_that_an_engine_does_not_take_is_refused(tmp_path):
    assert "plate.onnx" in engine_subject(write_batch_engine(tmp_path / "plate.onnx", max_batch=4), batch=4).name
    with pytest.raises(EngineError, match="takes 1 picture at once, found a batch of 2"):
        engine_subject(write_engine(tmp_path / "one.onnx"), batch=2)


def test_onnx_runtime_with_bound_memory_answers_as_without(tmp_path):
    engine = write_engine(tmp_path / "plate.onnx")
    batch = np.random.default_rng(0).integers(0, 256, (1, *INPUT_SIZE, 3), np.uint8)
    with (
        OnnxRuntimeBackend(engine, spec=SPEC) as wanted,
        OnnxRuntimeCudaBackend(engine, spec=SPEC, on="cpu") as bound,
    ):
        answer = bound.submit(batch).result()
        maps, scores = wanted.infer(batch)
    assert np.array_equal(answer.maps, maps)
    assert np.array_equal(answer.scores, scores)
    assert min(answer.upload_ms, answer.infer_ms, answer.download_ms) > 0


def test_missing_provider_is_refused_and_not_replaced(tmp_path):
    with pytest.raises(EngineError, match=r"expected NoSuchExecutionProvider .* onnxruntime-gpu"):
        require_provider(tmp_path / "plate.onnx", "NoSuchExecutionProvider")


def test_pictures_of_a_data_set_are_its_test_pictures(tmp_path, monkeypatch):
    folder = tmp_path / "plate"
    write_image(folder / "train/good/000.png", picture(10))
    for index in range(6):
        write_image(folder / f"test/good/{index:03d}.png", picture(20 + index))
    monkeypatch.setattr(subjects, "MOST", 4)
    chosen = Pictures(folder)
    loaded = chosen.load()
    assert chosen.load() is loaded  # decoded once
    assert len(loaded) == 4
    assert all(20 <= int(image[0, 0, 0]) <= 25 for image in loaded)
    assert chosen.describe() == "4 pictures of plate, 96 x 192"
    assert chosen.common_size() == (96, 192)


def test_few_large_pictures_are_taken(tmp_path, monkeypatch):
    for index in range(4):
        write_image(tmp_path / f"{index}.png", picture(20, size=(32, 64 + index)))
    monkeypatch.setattr(subjects, "MOST_BYTES", 3 * 32 * 64 * 2)
    chosen = Pictures(tmp_path)
    assert len(chosen.load()) == 2
    assert chosen.common_size() is None


def test_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        Pictures(tmp_path).load()


def test_batches_pass_through_all_pictures():
    assert [batch_of("abcde", index, size=2) for index in range(3)] == [["a", "b"], ["c", "d"], ["e", "a"]]
