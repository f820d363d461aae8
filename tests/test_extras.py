"""A base install has numpy and click alone: every program still helps, and names what it lacks in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stlm_edge.command import BENCHMARKS
from stlm_edge.extras import REMEDIES, explained, is_for_older_numpy

BASE = """
import runpy, sys, numpy, click
OURS = {"stlm_edge", "train", "export", "runtime", "benchmarks", "numpy", "click"}
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in OURS and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
sys.meta_path.insert(0, NotInstalled())
sys.argv[:] = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
PROGRAMS = {
    "train": ("fit", "--data", "."),
    "export": ("onnx", "README.md", "-o", "gone.onnx"),
    "runtime.camera": ("--engine", "README.md", "--source", "0"),
    "runtime.inspect": ("README.md", ".", "-o", "gone"),
    "stlm_edge.plate": ("gone",),
}


def base_install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BASE, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.heavy
@pytest.mark.parametrize("program", PROGRAMS)
def test_program_without_its_extra_names_it_in_one_line(program):
    helped = base_install(program, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    done = base_install(program, *PROGRAMS[program])
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("error: found no ")
    assert "; pip install 'stlm-edge[" in line


@pytest.mark.heavy
def test_benchmark_without_its_extra_names_it_in_one_line():
    lacking = 0
    for place, _ in BENCHMARKS.values():
        done = base_install(place.partition(":")[0].removesuffix(".__main__"))
        assert "Traceback" not in done.stderr
        if done.returncode == 1:
            (line,) = done.stderr.splitlines()
            assert line.startswith("error: found no ")
            lacking += 1
        else:  # it wants an option before any library
            assert done.returncode == 2
    assert lacking > 0


@pytest.mark.heavy
def test_whole_command_helps_on_a_base_install():
    for arguments in (["--help"], ["train", "--help"], ["export", "engine", "--help"], ["bench", "--help"]):
        done = base_install("stlm_edge.command", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
    done = base_install("stlm_edge.command", "train", "--data", ".")
    assert done.stderr == "error: found no torch, expected it for this command; pip install 'stlm-edge[train]'\n"


@pytest.mark.heavy
@pytest.mark.parametrize("program", PROGRAMS)
def test_program_without_numpy_says_so_in_one_line(program):
    code = BASE.replace("sys, numpy, click", "sys, click").replace('"numpy", ', "")
    done = subprocess.run(
        [sys.executable, "-c", code, program, *PROGRAMS[program]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: found no ")
    assert "Traceback" not in line


def test_each_remedy_says_what_to_install():
    for module in REMEDIES:
        line = str(explained(ModuleNotFoundError(f"No module named '{module}.part'", name=f"{module}.part")))
        assert line.startswith(f"found no {module}, expected it for this command; pip install ")
        assert "stlm-edge[" in line or "extras" in line or module == "numpy"
        assert "\n" not in line


def test_missing_opencv_tells_a_jetson_to_take_its_own():
    line = str(explained(ModuleNotFoundError("No module named 'cv2'", name="cv2")))
    assert "pip install 'stlm-edge[opencv]', or 'stlm-edge[headless]' on a machine without a screen" in line
    assert "on a Jetson use JetPack's OpenCV" in line
    assert "--system-site-packages" in line
    assert "numpy==1.26.*" in line


@pytest.mark.parametrize(
    "said", ["numpy.core.multiarray failed to import", "numpy._core.umath failed to import", "_ARRAY_API not found"]
)
def test_library_for_numpy_1_asks_for_it(said):
    assert is_for_older_numpy(said)
    assert str(explained(ImportError(said))).endswith("; pip install 'numpy==1.26.*'")


@pytest.mark.parametrize("error", [ImportError("libGL.so.1: cannot open"), ModuleNotFoundError("x", name="a_module")])
def test_other_failures_are_not_explained_away(error):
    assert explained(error) is None
