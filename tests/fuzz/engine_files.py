"""Engines, graphs and the tables beside them: valid files, and who reads them.

Heavy imports stand in functions: a worker loads what its targets need.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np

from stlm_edge.seal import SEAL, seal_of

from .mutations import write
from .target import Files, commanded, saved


def engine_files() -> Files:
    from ..runtime.conftest import write_engine

    return saved(lambda folder: write_engine(folder / "n.onnx"))


def open_and_infer(folder: Path, *, backend: Literal["onnxruntime", "openvino"] = "onnxruntime") -> object:
    from runtime.detector import Detector

    image = np.random.default_rng(0).integers(0, 200, (64, 128, 3), np.uint8)
    with Detector.open(folder / "n.onnx", backend=backend) as detector:
        anomaly = detector.inspect(image)
        return detector.spec, anomaly.score, anomaly.is_anomalous


def rehash_engine(files: Files) -> None:
    record = json.loads(files["n.onnx.json"])
    record["engine"]["engine_sha256"] = hashlib.sha256(files["n.onnx"]).hexdigest()
    del record[SEAL]
    files["n.onnx.json"] = write({**record, SEAL: seal_of(record)})


def read_graph_file(folder: Path) -> object:
    from export.graph.graph import read_graph

    graph = read_graph(folder / "n.onnx")
    return graph.spec, graph.record, hashlib.sha256(graph.to_bytes()).hexdigest()


def graph_files() -> Files:
    import onnx

    from export.graph.graph import OPSET, SPEC_KEY, set_metadata

    from ..runtime.conftest import SPEC, brightness_graph

    model = brightness_graph()
    model.opset_import[0].version = OPSET
    set_metadata(model, SPEC_KEY, SPEC.to_json())
    return saved(lambda folder: onnx.save(model, folder / "n.onnx"))


def kernel_files() -> Files:
    from export.graph.parts import STAGES
    from export.tensorrt.kernels import Kernel, KernelTable, KernelTensor, write_kernels

    tensor = KernelTensor("x", (1, 3, 64, 64), "fp16")
    kernels = tuple(
        Kernel(f"k{index}", "kgen", (tensor,), (), (tensor,), ("n",), stage, None, 10**6, "fp16", False)
        for index, stage in enumerate(STAGES)
    )

    def fill(folder: Path) -> None:
        (folder / "x.plan").write_bytes(b"a plan")
        write_kernels(folder / "x.plan", KernelTable(kernels, 10**7, ()))

    return saved(fill)


def report_plan(folder: Path) -> str:
    from export.__main__ import main

    return commanded(main, "report", str(folder / "x.plan"), "--gpu", "mine=1:2:0.5:1")
