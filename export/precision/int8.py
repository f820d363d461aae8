"""INT8 written into a graph as QuantizeLinear and DequantizeLinear, with scales that NVIDIA ModelOpt has calibrated.

ModelOpt calibrates once for all layers that can be quantised; which of them are in the end is chosen afterwards, by
taking pairs out again, so that trying another choice costs nothing.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import numpy_helper

from export.graph.graph import INPUT, OPSET, opset_of
from export.graph.parts import QUANTISABLE, LayerClass, is_weighted, layer_class
from stlm_edge.errors import EngineError
from stlm_edge.imaging import Input
from stlm_edge.memory import ran_out

Method = Literal["max", "entropy"]

_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
_WEIGHTED = ("Conv", "MatMul", "Gemm")


def quantisable(model: onnx.ModelProto, *, kept: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes of a float32 graph that can be in INT8: those with weights, outside of FP32 islands."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if is_weighted(node, weights) and layer_class(node) in QUANTISABLE and node.name not in kept
    ]


def calibrate(
    model: onnx.ModelProto, pictures: Sequence[Input], *, kept: Collection[str], method: Method = "entropy"
) -> onnx.ModelProto:
    """Quantise all that can be, on good pictures.

    Args:
        model: in float32.
        pictures: (1, H, W, 3) each.
        kept: names of the nodes that stay in FP32.
        method: `max` covers every value that was seen, `entropy` cuts off rare ones, which drifts less: with all
            classes the maps of magnetic tiles correlate to 0.990 with those in FP32, with `max` to 0.958.
    Returns:
        A copy with a pair of QuantizeLinear and DequantizeLinear before each input of each such layer, weights with
        one scale for each output channel. All scales are numbers that FP16 has, so that `to_half` changes none.
        ModelOpt leaves out what it expects to be slower: products with a single row, convolutions of few channels.
    Raises:
        EngineError: if ModelOpt is missing, or fails.
    """
    names = [f"^{re.escape(node.name)}$" for node in quantisable(model, kept=kept)]
    with tempfile.TemporaryDirectory(prefix="stlm-int8-") as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        _model_opt(source, target, np.concatenate(pictures), nodes=names, method=method)
        quantised = onnx.load(target)
    if opset_of(quantised) != OPSET:
        raise EngineError(
            f"ModelOpt made opset {opset_of(quantised)} of {OPSET}; install nvidia-modelopt 0.47, which keeps it"
        )
    _round_scales(quantised.graph)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def quantised_only(calibrated: onnx.ModelProto, classes: Collection[LayerClass]) -> onnx.ModelProto:
    """Of a graph of `calibrate`, the one in which only layers of these classes are quantised.

    Returns:
        A checked float32 graph; the quantised weights are stored in INT8, with a DequantizeLinear and without a
        QuantizeLinear.
    """
    chosen = onnx.ModelProto()
    chosen.CopyFrom(calibrated)
    graph = chosen.graph
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == _DEQUANTISE or (node.op_type in _WEIGHTED and layer_class(node) in classes):
            continue
        # Also what is added to a layer's input later, along a shortcut, for which ModelOpt takes the rounded values.
        for index, name in enumerate(node.input):
            if name in makers and makers[name].op_type == _DEQUANTISE:
                node.input[index] = makers[makers[name].input[0]].input[0]
    _drop_unused(graph)
    _store_weights(graph)
    _drop_unused(graph)
    onnx.checker.check_model(chosen, full_check=True)
    return chosen


def quantised_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes whose first two inputs come from DequantizeLinear."""
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == _DEQUANTISE}
    return [node for node in model.graph.node if len(node.input) > 1 and dequantised.issuperset(node.input[:2])]


def _model_opt(source: Path, target: Path, pictures: Input, *, nodes: list[str], method: Method) -> None:
    chatter = io.StringIO()  # what goes wrong is raised, not printed
    height, width = pictures.shape[1:3]
    try:
        with (
            contextlib.redirect_stdout(chatter),
            contextlib.redirect_stderr(chatter),
            warnings.catch_warnings(),
            _quiet_logging(),
        ):
            warnings.simplefilter("ignore")
            from modelopt.onnx.quantization import quantize  # only INT8 needs ModelOpt, and it prints

            quantize(
                str(source),
                quantize_mode="int8",
                calibration_data={INPUT: pictures},
                calibration_method=method,
                calibration_shapes=f"{INPUT}:1x{height}x{width}x3",  # spares a run to find out shapes
                calibration_eps=["cpu"],
                op_types_to_quantize=["Conv", "MatMul", "Gemm"],
                nodes_to_quantize=nodes,
                high_precision_dtype="fp32",
                output_path=str(target),
                log_level="ERROR",
            )
    except ImportError as error:
        raise EngineError(
            f"NVIDIA ModelOpt cannot be imported ({error}), expected it for INT8; pip install 'stlm-edge[int8]'"
        ) from error
    except Exception as error:  # ModelOpt and what it calls raise anything
        if ran_out(error):
            raise
        reason = " ".join(str(error).split())
        raise EngineError(
            f"ModelOpt cannot quantise the graph ({type(error).__name__}: {reason}); use --precision fp16, or report "
            "this with the version of nvidia-modelopt"
        ) from error


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _round_scales(graph: onnx.GraphProto) -> None:
    """Round scales to FP16 before anything is divided by them; one that would vanish becomes FP16's smallest number."""
    scales = {node.input[1] for node in graph.node if node.op_type in (_QUANTISE, _DEQUANTISE)}
    for tensor in graph.initializer:
        if tensor.name in scales:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(np.maximum(values, np.float32(_SMALLEST)), tensor.name))


def _store_weights(graph: onnx.GraphProto) -> None:
    """Compute what a QuantizeLinear makes of weights, and store that."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    stored: dict[str, onnx.NodeProto] = {
        node.output[0]: node for node in graph.node if node.op_type == _QUANTISE and node.input[0] in tensors
    }
    for node in list(stored.values()):
        weights, scale = (numpy_helper.to_array(tensors[name]) for name in node.input[:2])
        if scale.ndim:
            axis = next(int(attribute.i) for attribute in node.attribute if attribute.name == "axis")
            scale = scale.reshape([-1 if index == axis else 1 for index in range(weights.ndim)])
        rounded = np.clip(np.round(weights / scale), -127, 127).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(rounded, node.output[0]))
        graph.node.remove(node)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that nothing depends on any more."""
    wanted = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            wanted.update(node.input)
    for items in (graph.initializer, graph.value_info):
        for item in [item for item in items if item.name not in wanted]:
            items.remove(item)
