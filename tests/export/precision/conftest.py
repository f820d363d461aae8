"""A trained narrow network's deployment graph, pictures to calibrate on, and a compiler that needs no GPU."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import train
from export.graph.deployment import DeploymentGraph
from export.graph.to_onnx import to_onnx
from stlm_edge.imaging import to_input, write_image
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath
from stlm_edge.plate.part import render_part

SIZE = (64, 96)


@pytest.fixture(scope="session")
def inspector() -> InferencePath:
    """The demo's trained network, for an input that is small and not square."""
    loaded = load(Path(train.__file__).parent / "pretrained/plate/model.safetensors")
    return InferencePath(loaded.network, dataclasses.replace(loaded.spec, input_size=SIZE)).eval()


@pytest.fixture(scope="session")
def graph(inspector) -> onnx.ModelProto:
    return to_onnx(DeploymentGraph(inspector))


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A folder of six good pictures."""
    folder = tmp_path_factory.mktemp("good")
    for index in range(6):
        image = render_part(np.random.default_rng(index), size=(100, 140), defect=None).image
        write_image(folder / f"{index}.png", image)
    return folder


@pytest.fixture(scope="session")
def pictures(inspector):
    """Three pictures that were not calibrated on, one with a defect."""
    kinds = (None, "scratch", None)
    return [
        to_input(
            render_part(np.random.default_rng(50 + index), size=(100, 140), defect=kind).image, spec=inspector.spec
        )
        for index, kind in enumerate(kinds)
    ]


@pytest.fixture(scope="session")
def run():
    """Run a graph on the processor: map and score of one picture."""

    def run_graph(model: onnx.ModelProto, picture) -> tuple[np.ndarray, np.ndarray]:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(["anomaly_map", "score"], {"image": picture})

    return run_graph


@pytest.fixture(scope="session")
def kernels() -> Callable[[onnx.ModelProto], list[str]]:
    """Build a plan for SM 86 and list its kernels, each as the compiler's log describes it."""
    trt = pytest.importorskip("tensorrt_rtx")

    class Log(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity, message: str) -> None:
            self.lines += message.splitlines()

    def build(model: onnx.ModelProto) -> list[str]:
        log = Log()
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        assert parser.parse(model.SerializeToString()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        assert builder.build_serialized_network(network, config) is not None, log.lines[-5:]
        return [line for line in log.lines if re.search(r"LayerType: \w", line)]

    return build
