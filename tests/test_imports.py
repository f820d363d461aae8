"""Who may import whom, and how fast: a Jetson that only runs an engine has neither torch nor onnx."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[1]

CONTRACT = (
    "spec",
    "imaging",
    "scoring",
    "curves",
    "metrics",
    "thresholds",
    "threshold_command",
    "retrain_command",
    "sidecar",
    "datasets",
    "plate.part",
    "drawing",
    "errors",
    "revision",
    "files",
    "folders",
    "names",
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

ABOUT_TORCH = ("benchmarks.peers", "benchmarks.plan_counts", "benchmarks.training", "benchmarks.sizes")
"""These train, trace or export, which nobody does without torch and onnx, so their imports stand on top."""

START_LIMIT_S = 0.5


def loaded_after(*statements: str) -> list[set[str]]:
    """Which top-level packages a fresh interpreter has after each statement."""
    tell = "print('LOADED', *{name.split('.')[0] for name in sys.modules})"
    code = "\n".join(["import sys", *(f"{statement}\n{tell}" for statement in statements)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("LOADED ")]


def loaded(statement: str, names: tuple[str, ...]) -> set[str]:
    """Which of `names` a fresh interpreter has after `statement`."""
    return loaded_after(statement)[0] & set(names)


def test_contract_needs_no_heavy_package():
    modules = "\n".join(f"import stlm_edge.{module}" for module in CONTRACT)
    assert loaded(modules, (*HEAVY, "train", "export", "runtime", "benchmarks")) == set()


def test_network_needs_only_the_contract_and_training_only_the_network():
    network, training = loaded_after("import stlm_edge.network.weights", "import train.fit, train.__main__")
    assert network & {"train", "export", "runtime", "benchmarks", "onnx"} == set()
    assert training & {"export", "runtime", "benchmarks", "onnx"} == set()


def test_runtime_needs_only_the_contract():
    modules = (
        "camera", "detector", "sources", "sinks", "line", "backends.tensorrt", "plan_check", "area", "stitching",
        "drift_monitor", "review.review", "review.app",
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
    heavy = (
        "torch",
        "timm",
        "modelopt",
        "segment_anything",
        "tensorrt",
        "tensorrt_rtx",
        "onnxruntime",
        "openvino",
        "tqdm",
    )
    assert loaded("import export.tensorrt.build", (*heavy, "train", "runtime", "benchmarks")) == set()


def test_export_does_not_need_training():
    assert loaded("import export.pipeline, export.__main__", ("train", "benchmarks")) == set()


def test_engine_is_verified_and_calibrated_without_torch():
    assert loaded("import export.gate.threshold", (*HEAVY, "tqdm", "train", "benchmarks")) == set()
    heavy = ("torch", "timm", "segment_anything", "tqdm", "train", "benchmarks")
    assert loaded("import export.gate.verify", heavy) == set()


def test_help_of_every_program_loads_nothing_heavy():
    """In one process, so a package counts for the first program that loads it; the light ones come first."""
    found = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for package in ("runtime", "train", "export", "stlm_edge", "benchmarks")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "\ndef main(argv" in path.read_text()
    ]
    assert {"runtime.camera", "runtime.inspect", "runtime.doctor", "train", "export", "stlm_edge.plate"} <= set(found)
    code = f"""
import runpy, sys
before = set()
for program in {found}:
    sys.argv = [program, "--help"]
    try:
        runpy.run_module(program, run_name="__main__")
    except SystemExit as ending:
        here = {{name.split(".")[0] for name in sys.modules}}
        print("HELP", program, ending.code, *(here - before))
        before = here
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("HELP ")]
    assert [line[0] for line in lines] == found
    for program, exit_code, *packages in lines:
        if program in ABOUT_TORCH:
            assert exit_code == "0"
            continue
        forbidden = {*HEAVY, "numpy", "cv2"} if program.startswith("runtime.") else set(HEAVY)
        assert (program, exit_code, forbidden & set(packages)) == (program, "0", set())


@pytest.mark.parametrize("arguments", [["-c", "import stlm_edge"], ["-m", "runtime.camera", "--help"]])
def test_start_up_time(arguments):
    """Of the processor, and the fastest of five, since machines are shared; the limit is the architecture's promise."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < START_LIMIT_S


def test_libraries_report_nothing_to_their_makers():
    telemetry = pytest.importorskip("openvino.tools.ovc.telemetry_utils", reason="needs the extra openvino")
    assert telemetry.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
    with pytest.raises(ImportError):  # which NNCF takes for leave to be silent too
        import_module("openvino_telemetry")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
