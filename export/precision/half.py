"""FP16 written into a graph, with islands of FP32 where FP16 would overflow, vanish or lose too much.

NVIDIA ModelOpt's AutoCast gives the same engine where it is told the same islands: at 1024 x 1024, 25 fused attentions,
320 kernels and 3.03 GB moved in both. It works on files, takes twelve seconds to this module's one, rounds small
weights up to 6e-8, and needs islands told by the name of the node anyway. So the conversion is done here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph.graph import INPUT
from stlm_edge.imaging import Input

_LARGEST = float(np.finfo(np.float16).max)

HIGHEST = _LARGEST / 8
"""Largest activation that may be in FP16: an eighth of what it holds, since a defect may excite a layer more than the
good pictures that the range was measured on, and so may the partial sums on the way to a value."""

LOWEST = float(np.finfo(np.float16).smallest_normal)
"""A tensor whose mean is below has most of its values where FP16 has fewer digits, down to none."""

_RULES: tuple[tuple[str, str], ...] = (
    (r"pixels\|.*", "pixels lose their fractions in FP16 before the mean is off"),
    (r"comparison\|.*", "the sum of squares over channels overflows FP16, and 1e-12 is 0 in it"),
    (r"memory\|.*", "large squares nearly cancel where a patch is near a remembered one"),
    (r".*\.local_conv\|.*", "a sum of nine products, which is within one kernel"),
    (r"graph\|sigmoid.*|fusion\|.*|scoring\|.*", "the answer itself"),
)
"""Names of nodes, and why they stay in FP32 whatever the pictures say."""

_OPERATIONS: dict[str, str] = {
    "LayerNormalization": "mean and variance; compilers fuse the casts around it, so this costs nothing",
    "ReduceMean": "a sum over many values",
    "ReduceSum": "a sum over many values",
    "ReduceL2": "a sum over many squares",
}
"""The same by operation."""

_MULTIPLIES = frozenset({"Conv", "MatMul", "Gemm", "Mul", "Div"})
"""Operations that can make something of a value that is almost zero; others add it to larger ones."""

_MAKES_FLOATS = frozenset({"Constant", "ConstantOfShape", "Range", "EyeLike"})

_ALWAYS_FLOAT = {"Resize": (1, 2)}
"""Inputs that are float32 whatever the type of the data."""

_MOVES = frozenset({"Transpose", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Expand", "Concat", "Pad"})
"""What has the values of its source."""


@dataclass(frozen=True)
class Range:
    """Of one tensor's absolute values over all pictures: the highest, and the mean."""

    highest: float
    mean: float


def measure_ranges(model: onnx.ModelProto, pictures: Iterable[Input]) -> dict[str, Range]:
    """Run a float32 graph and see what its nodes put out.

    Each tensor is reduced to two numbers within the graph, so that one run in the memory of an ordinary one is enough,
    whatever the size of the picture.

    Args:
        pictures: (1, H, W, 3) each, at least one.
    Returns:
        Name of each float32 tensor that a node makes → its range; what merely moves values has that of its source.
    """
    import onnxruntime  # a Jetson that builds from a graph in its precision has none

    watched = onnx.shape_inference.infer_shapes(model)
    graph = watched.graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    nodes = [node for node in graph.node if node.op_type not in _MOVES]
    names = [name for node in nodes for name in node.output if known.get(name) == TensorProto.FLOAT]
    del graph.output[:]
    for index, name in enumerate(names):
        absolute, highest, mean = (f"watched.{index}.{what}" for what in ("absolute", "highest", "mean"))
        graph.node.extend(
            (
                helper.make_node("Abs", [name], [absolute]),
                helper.make_node("ReduceMax", [absolute], [highest], keepdims=0),
                helper.make_node("ReduceMean", [absolute], [mean], keepdims=0),
            )
        )
        graph.output.extend(helper.make_tensor_value_info(end, TensorProto.FLOAT, []) for end in (highest, mean))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seen = np.array([session.run(None, {INPUT: picture}) for picture in pictures]).reshape(-1, len(names), 2)
    highest, mean = seen[..., 0].max(axis=0), seen[..., 1].mean(axis=0)
    ranges = {name: Range(float(highest[index]), float(mean[index])) for index, name in enumerate(names)}
    for node in model.graph.node:
        sources = [ranges[name] for name in node.input if name in ranges]
        if node.op_type in _MOVES and sources:
            moved = Range(max(item.highest for item in sources), sum(item.mean for item in sources) / len(sources))
            ranges.update(dict.fromkeys(node.output, moved))
    return ranges


def islands(model: onnx.ModelProto, ranges: Mapping[str, Range] | None) -> dict[str, str]:
    """Which nodes of a float32 graph stay in FP32.

    Args:
        ranges: what `measure_ranges` has seen; None applies the rules alone.
    Returns:
        Name of the node → why it is kept.
    """
    outputs = {value.name for value in model.graph.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    large = {name: why for name, tensor in weights.items() if (why := _too_large(tensor))}
    faint = {name: why for name, tensor in weights.items() if (why := _too_faint(tensor))}
    unfit = _unfit_activations(model, ranges or {})
    fractions = _fractions_of_pixels(model)
    kept: dict[str, str] = {}
    for node in model.graph.node:
        reasons = [why for pattern, why in _RULES if re.fullmatch(pattern, node.name)]
        reasons += [why for operation, why in _OPERATIONS.items() if node.op_type == operation]
        if outputs.intersection(node.output):
            reasons.append("the answer itself")
        if node.op_type == "Conv" and node.input[0] in fractions:
            reasons.append("rounding pixels that are not whole numbers is the largest error of an FP16 graph")
        reasons += [unfit[name] for name in (*node.output, *node.input) if name in unfit]
        reasons += [large[name] for name in node.input if name in large]
        if node.op_type in _MULTIPLIES:
            reasons += [faint[name] for name in node.input[:2] if name in faint]  # the third is added
        if reasons:
            kept[node.name] = reasons[0]
    return kept


def to_half(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """Turn a float32 graph, also one with QuantizeLinear and DequantizeLinear, into one in FP16.

    Args:
        kept: names of the nodes that stay in FP32.
    Returns:
        A checked copy; inputs and outputs keep their types. A tensor gets at most one Cast to each type, named after
        the module that asks for it.
    """
    converted = onnx.shape_inference.infer_shapes(model)
    return _Conversion(converted).run(kept)


class _Conversion:
    """Walks once over the nodes, which stand in order of computation."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self.outputs = {value.name for value in graph.output}
        self.weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        values = (*graph.value_info, *graph.input, *graph.output)
        floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        # What each tensor that was float32 has become so far.
        self.types: dict[str, int] = dict.fromkeys(floats | set(self.weights), TensorProto.FLOAT)
        self.nodes: list[onnx.NodeProto] = []
        self.cast: dict[tuple[str, int], str] = {}
        self.half_weights: dict[str, onnx.TensorProto] = {}
        self.names: Counter[str] = Counter()

    def run(self, kept: Collection[str]) -> onnx.ModelProto:
        graph = self.model.graph
        for node in graph.node:
            is_kept = node.name in kept or node.op_type in _MAKES_FLOATS
            self._convert(node, TensorProto.FLOAT if is_kept else TensorProto.FLOAT16)
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        used = {name for node in graph.node for name in node.input}
        weights = [tensor for tensor in (*graph.initializer, *self.half_weights.values()) if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(weights)
        checked = onnx.shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True)
        onnx.checker.check_model(checked, full_check=True)
        return checked

    def _convert(self, node: onnx.NodeProto, wanted: int) -> None:
        for index, name in enumerate(node.input):
            if name in self.types and index not in _ALWAYS_FLOAT.get(node.op_type, ()):
                node.input[index] = self._as(name, wanted, node)
        if node.op_type == "Cast" and wanted == TensorProto.FLOAT16:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if name in self.outputs and name in self.types and wanted == TensorProto.FLOAT16:
                node.output[index] = f"{name}.half"
                self._add_cast(f"{name}.half", name, TensorProto.FLOAT, node)
            elif name in self.types:
                self.types[name] = wanted

    def _as(self, name: str, wanted: int, node: onnx.NodeProto) -> str:
        """The tensor's name in the type that `node` works in."""
        if self.types[name] == wanted:
            return name
        if name in self.weights:
            return self._half_weights(name)
        if (name, wanted) not in self.cast:
            self.cast[name, wanted] = f"{name}.{'half' if wanted == TensorProto.FLOAT16 else 'float'}"
            self._add_cast(name, self.cast[name, wanted], wanted, node)
        return self.cast[name, wanted]

    def _half_weights(self, name: str) -> str:
        if name not in self.half_weights:
            with np.errstate(over="ignore"):  # infinite is what it is in FP16; `islands` keeps such weights out
                halved = numpy_helper.to_array(self.weights[name]).astype(np.float16)
            self.half_weights[name] = numpy_helper.from_array(halved, f"{name}.half")
        return f"{name}.half"

    def _add_cast(self, name: str, result: str, wanted: int, node: onnx.NodeProto) -> None:
        operation = f"{node.name.split('|')[0]}|{'to_half' if wanted == TensorProto.FLOAT16 else 'to_float'}"
        self.names[operation] += 1
        count = self.names[operation]
        self.nodes.append(
            helper.make_node(
                "Cast", [name], [result], name=operation if count == 1 else f"{operation}.{count}", to=wanted
            )
        )


def _too_large(tensor: onnx.TensorProto) -> str | None:
    highest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
    return f"weights reach {highest:.3g}, beyond FP16" if highest > _LARGEST else None


def _too_faint(tensor: onnx.TensorProto) -> str | None:
    values = numpy_helper.to_array(tensor)
    mean = float(np.abs(values).mean()) if values.size else 0.0
    return f"weights are {mean:.1g} on average, below FP16's normal range" if 0 < mean < LOWEST else None


def _unfit_activations(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, str]:
    """Name of a tensor → why it must not be in FP16."""
    # A row of weights that sum to one is not small, however many there are.
    shares = {name for node in model.graph.node if node.op_type == "Softmax" for name in node.output}
    multiplied = {name for node in model.graph.node if node.op_type in _MULTIPLIES for name in node.input}
    unfit: dict[str, str] = {}
    for name, seen in ranges.items():
        if not seen.highest <= HIGHEST:  # also where it is not a number
            unfit[name] = f"values reach {seen.highest:.3g}, beyond {HIGHEST:.0f}"
        elif 0 < seen.mean < LOWEST and name in multiplied - shares:
            unfit[name] = f"values are {seen.mean:.1g} on average, below FP16's normal range"
    return unfit


def _fractions_of_pixels(model: onnx.ModelProto) -> set[str]:
    """What the first convolution takes, unless it is whole numbers, of which FP16 has all up to 2048.

    They are not where a mean with a fraction is subtracted, or where the graph resizes its pictures.
    """
    nodes = [node for node in model.graph.node if node.name.startswith("pixels|")]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    constants = [weights[name] for node in nodes if node.op_type == "Sub" for name in node.input if name in weights]
    whole = all((value == np.round(value)).all() for value in constants)
    if whole and {node.op_type for node in nodes} <= {"Cast", "Transpose", "Sub", "Concat", "Pad"}:
        return set()
    return {name for node in nodes for name in node.output}
