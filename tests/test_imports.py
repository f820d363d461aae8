"""Who may import whom, and how fast: a Jetson that only runs an engine has neither torch nor onnx."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

CONTRACT = (
    "spec",
    "imaging",
    "scoring",
    "curves",
    "metrics",
    "thresholds",
    "sidecar",
    "datasets",
    "plate.part",
    "drawing",
    "errors",
    "revision",
    "files",
    "cli",
    "download",
    "archives",
    "tensorrt",
)

HEAVY = (
    "torch",
    "onnx",
    "timm",
    "segment_anything",
    "openvino",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "cuda",
)

START_LIMIT_S = 0.5


def loaded(statement: str, names: tuple[str, ...]) -> set[str]:
    """Which of the top-level packages `names` a fresh interpreter has after `statement`."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()) & set(names)


@pytest.mark.parametrize("module", CONTRACT)
def test_contract_needs_no_heavy_package(module):
    assert loaded(f"import stlm_edge.{module}", (*HEAVY, "train", "export", "runtime", "benchmarks")) == set()


def test_network_needs_only_the_contract():
    assert loaded("import stlm_edge.network.weights", ("train", "export", "runtime", "benchmarks", "onnx")) == set()


def test_runtime_needs_only_the_contract():
    modules = (
        "camera", "detector", "sources", "sinks", "line", "backends.tensorrt", "plan_check", "area", "stitching",
        "drift_monitor",
    )  # fmt: skip
    assert (
        loaded("\n".join(f"import runtime.{module}" for module in modules), (*HEAVY, "train", "export", "benchmarks"))
        == set()
    )


def test_batches_and_the_doctor_need_only_the_contract():
    modules = (
        "import runtime.inspect, runtime.batch.loop, runtime.batch.listing, runtime.doctor, runtime.checkup.engine"
    )
    assert loaded(modules, (*HEAVY, "train", "export", "benchmarks")) == set()


def test_loop_is_measured_without_torch():
    assert loaded("import benchmarks.loop_measures", (*HEAVY, "train", "export")) == set()


def test_building_an_engine_needs_no_network():
    heavy = ("torch", "timm", "modelopt", "segment_anything", "tensorrt", "tensorrt_rtx", "onnxruntime", "openvino")
    assert loaded("import export.tensorrt.build", (*heavy, "train", "runtime", "benchmarks")) == set()


def test_training_needs_neither_export_nor_runtime():
    assert loaded("import train.fit, train.__main__", ("export", "runtime", "benchmarks", "onnx")) == set()


def test_export_does_not_need_training():
    assert loaded("import export.pipeline, export.__main__", ("train", "benchmarks")) == set()


def test_engine_is_verified_and_calibrated_without_torch():
    assert loaded("import export.gate.threshold", (*HEAVY, "train", "benchmarks")) == set()
    assert loaded("import export.gate.verify", ("torch", "timm", "segment_anything", "train", "benchmarks")) == set()


@pytest.mark.parametrize(
    "program",
    [
        "train",
        "export",
        "runtime.camera",
        "runtime.inspect",
        "runtime.doctor",
        "benchmarks.accuracy",
        "benchmarks.compare",
        "benchmarks.gpu",
        "benchmarks.latency",
        "benchmarks.pareto",
        "benchmarks.report",
        "benchmarks.stages",
        "stlm_edge.plate",
    ],
)
def test_help_loads_nothing_heavy(program):
    arguments = (
        f"import runpy; sys.argv = ['program', '--help']\ntry:\n    runpy.run_module({program!r}, run_name='__main__')"
    )
    assert loaded(f"{arguments}\nexcept SystemExit:\n    pass", HEAVY) == set()


@pytest.mark.parametrize("arguments", [["-c", "import stlm_edge"], ["-m", "runtime.camera", "--help"]])
def test_start_up_time(arguments):
    """The fastest of five, since machines are shared; the limit is the architecture's own promise."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    assert min(times) < START_LIMIT_S
