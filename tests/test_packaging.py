"""The wheel: what it holds, and `stlm` out of it in a folder with programs of the same names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import parse_email
from packaging.requirements import Requirement

from stlm_edge.extras import REMEDIES

pytestmark = [pytest.mark.heavy, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
PACKAGES = ("stlm_edge", "train", "export", "runtime", "benchmarks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools writes beside its sources."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    (built,) = folder.iterdir()
    return built


def test_wheel_holds_each_file_once_and_says_that_it_is_typed(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if ".dist-info/" not in name]
        contents = {name: file.getinfo(name).CRC for name in names if file.getinfo(name).file_size > 10_000}
    assert {name.partition("/")[0] for name in names} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert [name for name in names if name.endswith(".safetensors")] == ["train/pretrained/plate/model.safetensors"]
    assert len(set(contents.values())) == len(contents)
    in_tree = {str(path.relative_to(ROOT)) for path in (ROOT / "train/presets").glob("*.yaml")}
    assert in_tree <= set(names)


def test_stlm_runs_where_a_folder_has_programs_of_the_same_names(wheel, tmp_path):
    installed, folder = tmp_path / "site", tmp_path / "project"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(installed)
    folder.mkdir()
    for name in ("train", "export", "runtime", "benchmarks", "stlm_edge"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "stlm = stlm_edge.command:main" in entry.read_text()
    script = tmp_path / "stlm"  # as pip writes it
    script.write_text("import sys\nfrom stlm_edge.command import main\nsys.exit(main())\n")
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def stlm(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script, *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    for program in ("train", "export", "camera", "bench"):
        helped = stlm(program, "--help")
        assert (helped.returncode, helped.stderr) == (0, "")
    examined = stlm("doctor")
    assert "the wrong one" not in examined.stdout
    assert "NVIDIA driver" in examined.stdout
    assert stlm("--version").stdout.startswith("stlm-edge ")


def brought(requirements: list[Requirement], extra: str, *, machine: str) -> set[str]:
    """What an extra installs on a machine, the extras that it names included; an empty name for a base install."""
    environment = {"extra": extra, "platform_machine": machine}
    names: set[str] = set()
    for each in requirements:
        if each.marker is not None and not each.marker.evaluate(environment):
            continue
        if each.name == "stlm-edge":
            names |= set().union(*(brought(requirements, other, machine=machine) for other in each.extras))
        else:
            names.add(each.name)
    return names


def required(wheel: Path) -> list[Requirement]:
    """What the wheel's metadata asks for."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        metadata, _ = parse_email(file.read(name))
    return [Requirement(text) for text in metadata["requires_dist"]]


def test_extras_that_an_error_names_bring_what_was_missing(wheel):
    requirements = required(wheel)
    packages = {
        "yaml": "pyyaml",
        "modelopt": "nvidia-modelopt",
        "paho": "paho-mqtt",
        "prometheus_client": "prometheus-client",
        "markupsafe": "jinja2",  # which brings it
        "segment_anything": "segment-anything",
    }
    for module, remedy in REMEDIES.items():
        named = {name for group in re.findall(r"stlm-edge\[([\w,-]+)\]", remedy) for name in group.split(",")}
        assert named or module == "numpy"
        for extra in named - {"opencv", "headless"}:
            brings = brought(requirements, extra, machine="x86_64")
            also = extra == "onnxruntime" and module == "onnx"  # named beside the one that brings it
            assert also or packages.get(module, module) in brings, (module, extra)


def test_a_jetson_keeps_its_own_opencv_and_a_desktop_gets_one(wheel):
    requirements = required(wheel)
    assert brought(requirements, "", machine="x86_64") == {"numpy", "click"}
    for extra in ("engine", "tensorrt", "openvino", "onnxruntime", "train", "export", "int8"):
        assert "opencv-python" in brought(requirements, extra, machine="x86_64")
        assert not [name for name in brought(requirements, extra, machine="aarch64") if "opencv" in name]
    for extra in ("tensorrt", "tensorrt-cu12", "tensorrt-rtx"):  # a refused plan is built again where it was to run
        assert "onnx" in brought(requirements, extra, machine="aarch64")
    assert "tensorrt-cu12" in brought(requirements, "tensorrt-cu12", machine="x86_64")
    assert "tensorrt-cu12" not in brought(requirements, "tensorrt-cu12", machine="aarch64"), "JetPack brings TensorRT"
    for extra in ("demo", "dev"):  # make's own environment, which sees nothing of the system's
        assert "opencv-python" in brought(requirements, extra, machine="aarch64")
    assert brought(requirements, "headless", machine="x86_64") == {"numpy", "click", "opencv-python-headless"}
