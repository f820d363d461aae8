"""What DeepStream's Gst-nvinfer needs to run a graph: the graph with other ends, and a configuration.

What Gst-nvinfer hands over is "final float RGB/BGR/GRAY planar data" (its manual), while our graphs take interleaved
bytes; so the graph is written once more with a float input (N, 3, H, W), BGR, 0 … 255. Its interleaved order
(`network-input-order=1`) would need `infer-dims` beside it, without which it takes the height for the number of
channels and refuses the engine; planes are its default. It also counts the elements of an output without its first
dimension, and in older releases (`SplitFullDims` in nvdsinfer_func_utils.cpp) asserts that there is one: a score (N,)
would end the program, so it is (N, 1) here. The answers are the same. A plan of ours cannot be fed; one has to be built
from the graph written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from export.graph.graph import INPUT, OUTPUTS, Graph, read_graph
from runtime.backends import check_engine_file
from stlm_edge.errors import EngineError
from stlm_edge.files import write_text
from stlm_edge.sidecar import Sidecar, engine_sha256, require_verified
from stlm_edge.spec import ModelSpec, Threshold

MODEL = "stlm.onnx"
PLAN = "stlm.plan"
CONFIG = "config_infer_stlm.txt"

UNTRIED = "no DeepStream has run this yet; keys and shapes are those of its manual and sources"

SCORE = OUTPUTS[1]


def write_deepstream(engine: Path, folder: Path, *, allow_unverified: bool = False) -> Path:
    """Write the graph with other ends and the configuration of Gst-nvinfer into a folder.

    Args:
        engine: an `.onnx`, in any precision, with its sidecar.
        allow_unverified: also take an engine that no gate has verified.
    Returns:
        The configuration's path.
    Raises:
        EngineError: if the engine is a plan, missing, altered or not verified.
        SpecError: if its sidecar is missing or damaged, or has no threshold.
        OutputError: if the folder cannot be written to.
    """
    if engine.suffix != ".onnx":
        raise EngineError(
            f"{engine} cannot be fed by Gst-nvinfer, which hands over planes of floats and no bytes; give the .onnx "
            "file it was built from, or serve the plan by Gst-nvinferserver: stlm triton"
        )
    check_engine_file(engine)
    sidecar = Sidecar.read(engine)
    threshold = sidecar.spec.require_threshold()
    require_verified(engine, sidecar, allow_unverified=allow_unverified)
    if engine_sha256(engine) != sidecar.engine.engine_sha256:
        raise EngineError(f"{engine} has another SHA-256 than its sidecar says; copy both again or export it again")
    graph = for_nvinfer(read_graph(engine))
    graph.save(folder / MODEL)
    write_text(folder / CONFIG, "\n".join(_config(graph.spec, threshold, graph.precision)) + "\n")
    return folder / CONFIG


def for_nvinfer(graph: Graph) -> Graph:
    """The same network, which takes float32 planes (N, 3, H, W) and gives its score as (N, 1)."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph.model)
    inner = {INPUT: "interleaved", SCORE: "flat_score"}
    for node in changed.graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    make = onnx.helper.make_node
    changed.graph.node.insert(0, make("Transpose", [INPUT], [inner[INPUT]], "planes|Transpose", perm=(0, 2, 3, 1)))
    changed.graph.node.append(make("Unsqueeze", [inner[SCORE], "score.axis"], [SCORE], "score|Unsqueeze"))
    changed.graph.initializer.append(onnx.helper.make_tensor("score.axis", onnx.TensorProto.INT64, [1], [1]))
    ends = {value.name: value.type.tensor_type for value in (*changed.graph.input, *changed.graph.output)}
    ends[INPUT].elem_type = onnx.TensorProto.FLOAT
    count, height, width, channels = ends[INPUT].shape.dim
    ends[INPUT].shape.CopyFrom(onnx.TensorShapeProto(dim=(count, channels, height, width)))
    ends[SCORE].shape.dim.add().dim_value = 1
    onnx.checker.check_model(changed, full_check=True)
    return graph.with_model(changed)


def _config(spec: ModelSpec, threshold: Threshold, precision: str) -> Iterator[str]:
    height, width = spec.picture_size
    batched = spec.max_batch > 1
    shapes = "".join(
        f" --{which}Shapes={INPUT}:{count}x3x{height}x{width}"
        for which, count in (("min", 1), ("opt", spec.max_batch), ("max", spec.max_batch))
    )
    outputs = "anomaly_map, score and full_map" if spec.full_map else "anomaly_map and score"
    yield f"# Gst-nvinfer for the model of {spec.category!r}, written by stlm-edge."
    yield f"# NOT TRIED: {UNTRIED}."
    yield "#"
    yield f"# The graph carries its precision, {precision}; strongly-typed=1 keeps it where Gst-nvinfer builds the"
    yield "# plan. A DeepStream that does not know this key chooses each layer's precision; there, build it before:"
    yield f"#   trtexec --stronglyTyped --onnx={MODEL} --saveEngine={PLAN}{shapes if batched else ''}"
    yield "#"
    yield f"# The tensors {outputs} come as NvDsInferTensorMeta; a picture is anomalous where"
    yield f"# score >= {threshold.value!r}. Gst-nvinfer scales frames in another way than stlm-edge: compare scores"
    yield "# before this threshold is trusted, or export with --frame-size, so that the graph takes whole frames."
    yield "[property]"
    settings = {
        "gie-unique-id": 1,
        "process-mode": 1,
        "onnx-file": MODEL,
        "model-engine-file": PLAN,
        "batch-size": spec.max_batch,
        "network-mode": 0,
        "strongly-typed": 1,
        "network-type": 100,
        "output-tensor-meta": 1,
        "network-input-order": 0,
        "model-color-format": 1,
        "net-scale-factor": 1.0,
        "maintain-aspect-ratio": 0,
        "scaling-filter": 1,
    }
    for key, value in settings.items():
        yield f"{key}={value}"
