"""Libraries that are there, missing, or broken in all the ways that they break."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from runtime.checkup.finding import Finding
from runtime.checkup.libraries import (
    find_cuda_bindings,
    find_onnxruntime,
    find_opencv,
    find_openvino,
    find_pycuda,
    find_tensorrt,
    find_toolkit,
)
from runtime.checkup.probe import ask

from .conftest import Package, module_of

pytestmark = pytest.mark.heavy

TENSORRT = module_of("10.3.0")
TENSORRT_RTX = module_of("1.7.1", more="class ComputeCapability: __members__ = {'NONE': 0, 'SM86': 1, 'SM120': 2}")


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_installed_libraries_have_the_versions_of_their_packages() -> None:
    openvino, onnxruntime = only(find_openvino()), only(find_onnxruntime())
    assert openvino.state == onnxruntime.state == "ok"
    assert openvino.found == f"{importlib.metadata.version('openvino')} on CPU"
    assert onnxruntime.found == importlib.metadata.version("onnxruntime")


def test_missing_library_comes_with_its_install_command(hide: Callable[..., None]) -> None:
    hide("openvino", "onnxruntime")
    for finding, extra in ((only(find_openvino()), "openvino"), (only(find_onnxruntime()), "onnxruntime")):
        assert (finding.state, finding.found) == ("missing", "not installed")
        assert finding.remedy == f"pip install 'stlm-edge[{extra}]'"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("raise ImportError('libopenvino.so:\\n  wrong ELF class')", "ImportError: libopenvino.so: wrong ELF class"),
        ("import os; os.abort()", "ends its process by SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ends its process by SIGSEGV"),
        ("import os; os._exit(3)", "ends its process with exit code 3"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("import a_dependency", "ModuleNotFoundError: No module named 'a_dependency'"),
        ("print('__version__ of another kind')", "AttributeError: module 'openvino' has no attribute '__version__'"),
        ("raise RuntimeError('x' * 2000)", "RuntimeError: " + "x" * 285 + "…"),
    ],
)
def test_broken_library_is_a_line(install: Package, code: str, found: str) -> None:
    install("openvino", code)
    finding = only(find_openvino())
    assert (finding.state, finding.found) == ("broken", found)


def test_what_an_aborting_library_says_is_kept(install: Package) -> None:
    install("openvino", "import os, sys; print('terminate called', file=sys.stderr, flush=True); os.abort()")
    assert only(find_openvino()).found == "ends its process by SIGABRT: terminate called"


def test_library_that_hangs_is_left_behind(install: Package) -> None:
    install("sleeper", "import time; time.sleep(600)")
    answer = ask("sleeper", "1", timeout_s=0.5)
    assert (answer.value, answer.failure) == (None, "does not answer within 0.5 s")


def test_chatty_library_does_not_spoil_the_answer(install: Package) -> None:
    install("tensorrt", TENSORRT + "print('hello', end='')\nimport atexit; atexit.register(print, 'bye')\n")
    assert only(find_tensorrt("tensorrt", compute_capability=None)).found == "10.3.0"


def test_folder_named_like_a_product_is_not_taken_for_it(install: Package) -> None:
    install("tensorrt", "__version__ = '10.3.0'")
    finding = only(find_tensorrt("tensorrt", compute_capability=None))
    assert finding.state == "broken"
    assert finding.found.startswith("tensorrt is there but does not work (")
    assert finding.found.endswith("tensorrt/__init__.py has no Builder)")


@pytest.mark.parametrize(("capability", "state"), [(None, "ok"), ("sm86", "ok"), ("sm87", "broken")])
def test_tensorrt_rtx_is_refused_on_a_gpu_that_it_has_no_kernels_for(
    install: Package, capability: str | None, state: str
) -> None:
    install("tensorrt_rtx", TENSORRT_RTX)
    finding = only(find_tensorrt("tensorrt-rtx", compute_capability=capability))
    assert finding.state == state
    if state == "broken":
        assert finding.found == "1.7.1, for sm86, sm120; this GPU is sm87"


def test_part_of_a_package_that_is_missing_counts_as_missing(hide: Callable[..., None]) -> None:
    hide("cuda")
    finding = only(find_cuda_bindings())
    assert finding.state == "missing"
    assert str(finding.remedy).startswith("it makes CUDA graphs, and runs plans without pycuda and a compiler: pip ")
    assert str(finding.remedy).endswith(" install cuda-bindings")


def test_missing_pycuda_says_what_its_build_lacks(
    hide: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide("pycuda")
    for name in ("CUDA_HOME", "CUDA_ROOT", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = only(find_pycuda(tmp_path))
    assert finding.state == "missing"
    assert "would not find nvcc, cuda.h, cudaProfiler.h, curand.h, libcurand.so, libcuda.so, a C++ compiler" in str(
        finding.remedy
    )
    there = ("bin/nvcc", "include/cuda.h", "include/cudaProfiler.h", "targets/sbsa-linux/include/curand.h")
    for part in (*there, "lib64/stubs/libcuda.so"):
        file = tmp_path / "toolkit" / part
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    assert "would not find libcurand.so, a C++ compiler:" in str(only(find_pycuda(tmp_path)).remedy)
    (tmp_path / "usr/lib/aarch64-linux-gnu").mkdir(parents=True)
    (tmp_path / "usr/lib/aarch64-linux-gnu/libcurand.so").touch()
    (tmp_path / "c++").touch(mode=0o755)
    remedy = str(only(find_pycuda(tmp_path)).remedy)
    assert remedy.startswith(f"build it: PATH={tmp_path}/toolkit/bin:$PATH pip install ")


@pytest.mark.parametrize(
    ("library", "remedy"),
    [
        ("libcuda.so.1", "it is built and finds no driver"),
        ("libcurand.so.10", "it is built with a library that is gone"),
    ],
)
def test_pycuda_without_its_libraries_is_not_built_again(
    install: Package, tmp_path: Path, library: str, remedy: str
) -> None:
    install("pycuda", f"raise ImportError('{library}: cannot open shared object file')")
    finding = only(find_pycuda(tmp_path))
    assert finding.state == "broken"
    assert str(finding.remedy).startswith(remedy)


def test_opencv_is_taken_apart(install: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    real = {finding.subject: finding for finding in find_opencv()}
    assert list(real) == ["OpenCV", "GStreamer", "FFmpeg", "V4L2", "screen"]
    assert real["screen"].found.startswith("neither DISPLAY nor WAYLAND_DISPLAY is set")
    assert real["OpenCV"].found == f"{cv2.__version__}, opencv-python, in {Path(cv2.__file__).parent}"
    build = "  GUI: NONE\n  Video I/O:\n    FFMPEG: NO\n    GStreamer: YES (1.20.3)\n    v4l/v4l2: NO\n"
    install("cv2", f"__version__ = '4.8.0'\ndef getBuildInformation(): return {build!r}\n")
    states = {finding.subject: (finding.state, finding.found) for finding in find_opencv()}
    folder = tmp_path / "packages/cv2"
    assert states == {
        "OpenCV": ("ok", f"4.8.0, opencv-python, in {folder}"),
        "GStreamer": ("ok", "1.20.3"),
        "FFmpeg": ("missing", "OpenCV was built without it"),
        "V4L2": ("missing", "OpenCV was built without it"),
        "screen": ("missing", "OpenCV was built without windows"),
    }


def test_screen_that_cannot_be_reached_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    screen = find_opencv()[-1]
    assert screen.state == "broken"
    assert screen.found.startswith("no window can be opened")


def test_broken_opencv_is_one_finding(install: Package) -> None:
    install("cv2", "raise ImportError('libGL.so.1: cannot open shared object file')")
    finding = only(find_opencv())
    assert (finding.state, finding.subject) == ("broken", "OpenCV")


@pytest.mark.heavy
def test_jetson_is_told_to_keep_its_own_opencv(install: Package) -> None:
    install("cv2", "__version__ = '4.11.0'\ndef getBuildInformation(): return '  GUI: NONE\\n  GStreamer: NO\\n'\n")
    for finding in find_opencv(is_jetson=True)[1:]:
        assert finding.state == "missing"
        assert "use JetPack's OpenCV, not pip's, which has no GStreamer" in str(finding.remedy)
        assert "numpy==1.26.*" in str(finding.remedy)
    for finding in find_opencv(is_jetson=False)[1:]:
        assert "JetPack" not in str(finding.remedy)


@pytest.mark.heavy
def test_missing_opencv_has_another_remedy_on_a_jetson(hide: Callable[..., None]) -> None:
    hide("cv2")
    desktop, jetson = only(find_opencv()), only(find_opencv(is_jetson=True))
    assert desktop.state == jetson.state == "missing"
    assert str(desktop.remedy).startswith("pip install 'stlm-edge[opencv]', or 'stlm-edge[headless]'")
    assert "pip install 'stlm-edge" not in str(jetson.remedy)
    assert "--system-site-packages" in str(jetson.remedy)


@pytest.mark.heavy
@pytest.mark.parametrize("is_jetson", [True, False])
def test_opencv_built_for_numpy_1_asks_for_it(install: Package, is_jetson: bool) -> None:
    install("cv2", "raise ImportError('numpy.core.multiarray failed to import')")
    finding = only(find_opencv(is_jetson=is_jetson))
    assert (finding.state, finding.remedy) == ("broken", "pip install 'numpy==1.26.*'")


def test_what_trains_and_exports_is_looked_up_and_not_imported(monkeypatch):
    installed = {"torch": "2.9.0", "onnx": "1.19.0"}

    def version(package: str) -> str:
        if package not in installed:
            raise importlib.metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = {finding.subject: finding for finding in find_toolkit()}
    assert {name: finding.found for name, finding in findings.items() if finding.state == "ok"} == {
        "PyTorch": "2.9.0",
        "onnx": "1.19.0",
    }
    assert findings["ModelOpt"].remedy.endswith("running an engine does without: pip install 'stlm-edge[int8]'")
    assert findings["NNCF"].remedy.endswith("pip install 'stlm-edge[openvino-int8]'")
