"""The examples do what the Python runtime does with the same engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.graph.graph import GraphOptions, load_graph
from runtime.detector import Detector
from stlm_edge.imaging import write_image
from stlm_edge.plate.part import render_part
from tests.export.tiny import write_engine

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAME = (120, 160)
HEADER = "onnxruntime_cxx_api.h"
HEADERS_FROM_NPM = "com.github.asus4.onnxruntime@0.4.9"
"""The one package of a registry that has them, for Unity; Debian has them from trixie on (libonnxruntime-dev)."""


def frame(index: int, defect: str | None) -> np.ndarray:
    return render_part(np.random.default_rng(index), size=FRAME, defect=defect).image


@pytest.fixture(scope="module")
def framed(make_once, small_checkpoint: Path) -> Path:
    """An engine that takes whole frames, with two thresholds."""

    def export(folder: Path) -> None:
        write_engine(load_graph(small_checkpoint, GraphOptions(frame_size=FRAME)), folder / "framed.onnx")

    return make_once("framed", export) / "framed.onnx"


def find_headers(folder: Path) -> Path:
    """ONNX Runtime's; else they are taken out of a package, or the test is skipped."""
    for place in (
        os.environ.get("ONNXRUNTIME_INCLUDE", ""),
        "/usr/include/onnxruntime",
        "/usr/local/include/onnxruntime",
    ):
        if place and (Path(place) / HEADER).is_file():
            return Path(place)
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"no {HEADER} of ONNX Runtime; apt install libonnxruntime-dev, or set ONNXRUNTIME_INCLUDE")
    got = subprocess.run(
        [npm, "pack", "--silent", HEADERS_FROM_NPM],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if got.returncode != 0:
        pytest.skip(f"no {HEADER}, and npm has none: {(got.stderr.strip().splitlines() or ['no word'])[-1]}")
    with tarfile.open(folder / got.stdout.split()[-1]) as archive:
        for member in archive:
            if "Headers/onnxruntime_" in member.name and member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                (folder / Path(member.name).name).write_bytes(content.read())
            elif (folder / HEADER).is_file() and "Headers/" not in member.name:
                break  # what follows are libraries for phones
    return folder


@pytest.fixture(scope="module")
def inspect(make_once) -> Path:
    """The C++ program, compiled as its first lines say, with the library that Python's package brings."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    import onnxruntime

    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not found:
        pytest.skip("this onnxruntime has no library of its own; its Python module holds it")

    def build(folder: Path) -> None:
        (folder / "libonnxruntime.so").symlink_to(found[0])
        (folder / "libonnxruntime.so.1").symlink_to(found[0])
        headers = find_headers(folder)
        rpath = f"-Wl,-rpath,{folder.with_suffix('')}"  # where `make_once` puts it in the end
        command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", EXAMPLES / "cpp/inspect.cpp"]
        command += [f"-I{headers}", f"-L{folder}", rpath, "-lonnxruntime", "-o", folder / "inspect"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return make_once("cpp", build) / "inspect"


def write_without_score(engine: Path, path: Path) -> None:
    """The same graph, whose score is 0 / 0."""
    model = onnx.load(engine)
    for node in model.graph.node:
        node.output[:] = ["finite" if name == "score" else name for name in node.output]
    zero = onnx.helper.make_node("Sub", ["finite", "finite"], ["zero"])
    model.graph.node.extend([zero, onnx.helper.make_node("Div", ["zero", "zero"], ["score"])])
    onnx.save(model, path)


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.heavy
@pytest.mark.slow
def test_program_in_cpp_gives_the_detectors_scores_and_verdicts(inspect: Path, framed: Path, tmp_path: Path) -> None:
    frames = [frame(index, defect) for index, defect in enumerate([None, "scratch", "stain"])]
    for index, pixels in enumerate(frames):
        pixels.tofile(tmp_path / f"{index}.bgr")
    files = sorted(tmp_path.glob("*.bgr"))
    with Detector.open(framed, backend="onnxruntime") as detector:
        wanted = [detector.inspect(pixels) for pixels in frames]
    middle = sorted(anomaly.score for anomaly in wanted)[1]
    for options, threshold in (([], wanted[0].threshold), (["--threshold", repr(middle - 1e-6)], middle - 1e-6)):
        done = run(inspect, framed, *files, *options)
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        assert [row[0] for row in rows] == [str(path) for path in files], done.stderr
        np.testing.assert_allclose([float(row[1]) for row in rows], [a.score for a in wanted], rtol=1e-6)
        assert [row[2] == "anomalous" for row in rows] == [anomaly.score >= threshold for anomaly in wanted]
        assert done.returncode == (3 if any(anomaly.score >= threshold for anomaly in wanted) else 0)
    for row, anomaly in zip(rows, wanted, strict=True):  # the cell whose middle that is
        cell = np.unravel_index(anomaly.network_map.argmax(), anomaly.network_map.shape)
        y, x = (int((2 * at + 1) * side // (2 * of)) for at, side, of in zip(cell, FRAME, (4, 6), strict=True))
        assert row[3] == f"peak at row {y}, column {x}"

    (tmp_path / "short.bgr").write_bytes(b"\0" * 10)
    for arguments, words in (
        ([framed, tmp_path / "short.bgr"], "has 10 bytes, expected 57600: 120 x 160 pixels"),
        ([framed, tmp_path / "none.bgr"], "cannot be read"),
        ([framed, files[0], "--threshold", "0,3"], "expected a number"),
        ([tmp_path / "none.onnx", files[0]], "none.onnx"),
    ):
        done = run(inspect, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
    assert run(inspect, framed).returncode == run(inspect, framed, files[0], "--threshold").returncode == 2
    undefined = tmp_path / "undefined.onnx"
    write_without_score(framed, undefined)
    done = run(inspect, undefined, files[0])
    assert (done.returncode, done.stdout) == (1, "") and "has no score" in done.stderr


def test_cells_of_the_notebook_run_one_after_the_other(
    traced_engine: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    for index, defect in enumerate([None, "scratch"]):
        write_image(
            tmp_path / f"{index}.tif", render_part(np.random.default_rng(index), size=FRAME, defect=defect).image
        )
    notebook = json.loads((EXAMPLES / "inspect.ipynb").read_text())
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []  # nobody has left any
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            names |= {"ENGINE": str(traced_engine), "PICTURES": str(tmp_path)}
    import matplotlib.pyplot as plt

    assert len(plt.get_fignums()) == 2
    plt.close("all")
    told = capsys.readouterr().out
    with Detector.open(traced_engine) as detector:
        for index, defect in enumerate([None, "scratch"]):
            image = render_part(np.random.default_rng(index), size=FRAME, defect=defect).image
            assert f"{detector.inspect(image).score:.4f}" in told
