"""Plans built for a GPU that need not be there."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

BuildPlan = Callable[[onnx.ModelProto], tuple[bytes, list[str]]]


@pytest.fixture(scope="session")
def build_plan() -> BuildPlan:
    """Builds a plan for SM 8.6 by TensorRT-RTX; gives it and the compiler's messages."""
    trt = pytest.importorskip("tensorrt_rtx")

    class Log(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[str] = []

        def log(self, severity: trt.ILogger.Severity, message: str) -> None:
            self.messages.append(message)

    def build(model: onnx.ModelProto) -> tuple[bytes, list[str]]:
        log = Log()
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        assert parser.parse(model.SerializeToString()), [str(parser.get_error(i)) for i in range(parser.num_errors)]
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        plan = builder.build_serialized_network(network, config)
        assert plan is not None, log.messages[-5:]
        return bytes(plan), log.messages

    return build
