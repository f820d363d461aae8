"""A real server of Triton with the repository that `stlm triton` writes, on the processor.

NVIDIA's package of it brings the server itself and its Python backend, so that the backend is what these tests change
in a config.pbtxt, and nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export.__main__ import main
from export.graph.graph import Graph, GraphOptions, load_graph
from runtime.detector import Detector
from stlm_edge.imaging import write_image
from stlm_edge.plate.part import render_part

from ..tiny import PLATE, write_engine

pytestmark = [pytest.mark.heavy, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
CLIENT_PROGRAM = ROOT / "examples" / "triton_client.py"
SERVER = "nvidia-pytriton==0.7.0"
CLIENT = ["tritonclient[http]", "numpy<2", "onnxruntime", "opencv-python-headless"]
START_S = 60
CATEGORY = 'é "\\\n\t} max_batch_size: 8 {'
NATIVE = (256, 256)
"""Of the demo's network, whose scores tell good parts from bad ones at this size only."""


@pytest.fixture(scope="module")
def environment(make_once) -> Path:
    """A virtual environment with the server, its client and what a client needs of this package."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"

    def fill(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        # What is not there as a wheel (numpy 1 for a newer Python, another processor) would take minutes to compile.
        install = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary", ":all:"]
        for packages in (CLIENT, ["--no-deps", SERVER]):  # of which the server itself needs none
            done = subprocess.run([*install, *packages], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"Triton's server cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        server = package(folder) / "tritonserver"
        stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.is_file():
            pytest.skip(f"Triton's server has no Python backend for Python {version}")
        shutil.copy(stub, server / "backends/python")

    return make_once("triton", fill)


def package(environment: Path) -> Path:
    (found,) = environment.glob("lib/python3.*/site-packages/pytriton")
    return found


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine for up to four pictures."""
    graph = load_graph(PLATE, GraphOptions(max_batch=4))
    assert graph.spec.input_size == NATIVE
    return write_engine(graph, tmp_path_factory.mktemp("several") / "plate.onnx")


@pytest.fixture(scope="module")
def repository(graph: Graph, several: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By default options, with a queue, and of fixed shapes."""
    folder = tmp_path_factory.mktemp("served")
    spec = dataclasses.replace(graph.spec, category=CATEGORY)
    fixed = write_engine(dataclasses.replace(graph, spec=spec, content=None), folder / "fixed.onnx")
    queue = ["--name", "tile-7", "--instances", "2", "--device", "cpu", "--max-queue-delay-us", "5000000"]
    for engine, options in ((several, []), (several, queue), (fixed, ["--name", "fixed"])):
        assert main(["triton", str(engine), "-o", str(folder / "repository"), *options]) == 0
    for path in (folder / "repository").glob("*/config.pbtxt"):
        text, changed = re.subn(
            r'^backend: "onnxruntime"\ndefault_model_filename: "model.onnx"$',
            'backend: "python"\ndefault_model_filename: "model.py"',
            path.read_text(),
            flags=re.MULTILINE,
        )
        assert changed == 1
        path.write_text(text)
        shutil.copy(Path(__file__).with_name("served_by_python.py"), path.parent / "1" / "model.py")
    return folder / "repository"


@pytest.fixture(scope="module")
def address(environment: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server is ready, which it is only when it has loaded every model."""
    server = package(environment) / "tritonserver"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    libraries = f"{environment}/lib:{sysconfig.get_config_var('LIBDIR')}"
    options = [f"--model-repository={repository}", f"--backend-directory={server / 'backends'}"]
    options += ["--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
    with log.open("w") as written:
        process = subprocess.Popen(
            [server / "bin/tritonserver", *options],
            env=os.environ | {"PATH": f"{environment}/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": libraries},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(process, port, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    said = log.read_text()
    if "libpython" in said and "cannot open shared object file" in said:
        pytest.skip("this Python has no shared library, which Triton's Python backend needs")
    pytest.fail(f"the server does not get ready:\n{said}")


def ask(address: str, path: str, question: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if question is None else json.dumps(question).encode()
    with urllib.request.urlopen(f"http://{address}/v2/models/{path}", data=data, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.parametrize("defect", [None, "scratch"])
def test_client_of_the_examples_gets_the_detectors_verdict(
    environment: Path, address: str, several: Path, tmp_path: Path, defect: str | None
) -> None:
    frame = render_part(np.random.default_rng(0), size=NATIVE, defect=defect).image
    write_image(tmp_path / "part.png", frame)
    done = client(environment, tmp_path / "part.png", "--url", address)
    assert done.returncode == 0, done.stderr
    score, verdict = done.stdout.split()
    with Detector.open(several, backend="onnxruntime") as detector:
        wanted = detector.inspect(frame)
    assert float(score) == pytest.approx(wanted.score, abs=1e-5)
    assert verdict == str(wanted.is_anomalous) == str(defect is not None)


def test_client_tells_other_sizes_and_unknown_models_in_a_line(environment: Path, address: str, tmp_path: Path) -> None:
    write_image(tmp_path / "part.png", render_part(np.random.default_rng(0), size=(100, 90), defect=None).image)
    for arguments, words in (([], "is 100 x 90 pixels, expected 256 x 256"), (["--model", "none"], "none")):
        done = client(environment, tmp_path / "part.png", "--url", address, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert words in line


def client(environment: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """That of the examples, in an environment without this package."""
    command = [environment / "bin/python", "-I", CLIENT_PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_requests_that_come_together_are_one_batch_and_each_gets_its_own_answer(address: str, several: Path) -> None:
    kinds = (None, "scratch", None, "scratch")
    images = [
        render_part(np.random.default_rng(index), size=NATIVE, defect=kind).image for index, kind in enumerate(kinds)
    ]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda image: infer(address, "tile-7", image), images))
    (model,) = ask(address, "tile-7/stats")["model_stats"]
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in model["batch_stats"]] == [(4, 1)]
    wanted = run(several, np.stack(images))
    np.testing.assert_allclose(np.concatenate([answer["anomaly_map"] for answer in answers]), wanted[0], atol=1e-5)
    np.testing.assert_allclose(np.concatenate([answer["score"] for answer in answers]), wanted[1][:, None], atol=1e-5)
    assert wanted[1].max() - wanted[1].min() > 0.5


def test_fixed_shapes_and_a_specification_with_every_character(address: str, graph: Graph, repository: Path) -> None:
    config = ask(address, "fixed/config")
    assert json.loads(config["parameters"]["stlm_edge.spec"]["string_value"])["category"] == CATEGORY
    assert config["max_batch_size"] == 0
    image = render_part(np.random.default_rng(0), size=graph.spec.input_size, defect=None).image
    answer = infer(address, "fixed", image)
    wanted = run(repository / "fixed/1/model.onnx", image[None])
    np.testing.assert_allclose(answer["anomaly_map"], wanted[0], atol=1e-5)
    np.testing.assert_allclose(answer["score"], wanted[1], atol=1e-5)


def infer(address: str, model: str, image: np.ndarray) -> dict[str, np.ndarray]:
    """Without a client's library, as Triton's protocol has it in JSON."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *image.shape], "data": image.ravel().tolist()}
    outputs = ask(address, f"{model}/infer", {"inputs": [tensor]})["outputs"]
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in outputs}


def run(engine: Path, images: np.ndarray) -> list[np.ndarray]:
    """Map and score by ONNX Runtime in this process."""
    session = onnxruntime.InferenceSession(engine, providers=["CPUExecutionProvider"])
    return session.run(["anomaly_map", "score"], {"image": images})
