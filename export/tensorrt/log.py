"""Read the kernels of a plan from the log of the compiler that built it.

TensorRT-RTX, and a logger that takes verbose messages, list them when a plan is built with
`ProfilingVerbosity.DETAILED`, also on a machine without a GPU. One line is one kernel:

    Name: …, LayerType: kgen, Inputs: [ { Name: …, Dimensions: [1,64,64], …, Datatype: Half, Format: … }],
    Constants: […], Outputs: […], TacticName: …, StreamId: 0, Metadata: [ONNX Layer: module|operation][…
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from export.graph.graph import Graph
from export.graph.parts import node_flops, place
from export.tensorrt.kernels import Kernel, KernelTable, KernelTensor
from stlm_edge.errors import EngineError

_MARK = "LayerType: "
_KERNEL = re.compile(
    r"Name: (?P<name>.+?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: .*?Metadata:(?P<nodes>.*)$"
)
_TENSOR = re.compile(r"\{ Name: (.+?), Dimensions: \[([-\d,]*)\], [^{}]*?Datatype: (\w+), [^{}]*\}")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")

_DTYPES = {
    "Float": "fp32",
    "Half": "fp16",
    "BFloat16": "bf16",
    "FP8": "fp8",
    "Int8": "int8",
    "UInt8": "uint8",
    "Bool": "bool",
    "Int32": "int32",
    "Int64": "int64",
}

_SYNCHRONISATION = ("signal", "wait")
"""Entries between the plan's CUDA streams; they compute nothing."""

_PRODUCT_KINDS = ("correlation", "gemm", "runtime_fusion")


def kernel_table(log: Iterable[str], graph: Graph) -> KernelTable:
    """The kernels of a plan.

    Args:
        log: the messages of the build, of one line or several each.
        graph: that was built, in the precision it was built in.
    Raises:
        EngineError: if the log lists no kernels, lists them in an unknown form or those of another graph, or if the
            graph is for a dynamic batch, whose kernels have no shapes before they run.
    """
    kernels = parse_kernels(log)
    flops = node_flops(graph.model)
    softmaxes = {node.name for node in graph.model.graph.node if node.op_type == "Softmax"}
    computing = _computing(kernels, flops)
    if flops and not computing:
        raise EngineError(
            f"none of the graph's {len(flops)} products is named in the log, which lists {len(kernels)} kernels; "
            "expected the log of this graph, build it again"
        )
    placed = []
    for index, kernel in enumerate(kernels):
        products = [name for name in kernel.nodes if computing.get(name) == index]
        # A product says best where a kernel belongs that takes a bit of its neighbours along.
        stage, stream = place(products or kernel.nodes)
        placed.append(
            dataclasses.replace(
                kernel,
                stage=stage,
                stream=stream,
                flops=sum(flops[name] for name in products),
                is_attention=len(products) > 1 and not softmaxes.isdisjoint(kernel.nodes),
            )
        )
    return KernelTable(
        kernels=_adopt(placed),
        graph_flops=sum(flops.values()),
        unplaced=tuple(name for name in flops if name not in computing),
    )


def parse_kernels(log: Iterable[str]) -> list[Kernel]:
    """The kernels that a log lists, without what only the graph can tell (`stage`, `flops` and so on are empty).

    Raises `EngineError`, see `kernel_table`.
    """
    lines = [line for message in log for line in message.splitlines() if _MARK in line]
    kernels = [kernel for kernel in map(_kernel, lines) if kernel.kind not in _SYNCHRONISATION]
    if not kernels:
        raise EngineError(
            f"the build log lists no kernels, expected lines with '{_MARK.strip()}'; build with "
            "ProfilingVerbosity.DETAILED and a logger that takes verbose messages"
        )
    return kernels


def _kernel(line: str) -> Kernel:
    match = _KERNEL.search(line)
    if match is None:
        raise EngineError(
            f"the build log has a kernel in an unknown form: {line[:120]!r}…; expected 'Name: …, LayerType: …, "
            "Inputs: […], Constants: […], Outputs: […]', report this with your TensorRT version"
        )
    inputs, constants, outputs = (_tensors(match[part]) for part in ("inputs", "constants", "outputs"))
    return Kernel(
        name=match["name"],
        kind=match["kind"],
        inputs=inputs,
        constants=constants,
        outputs=outputs,
        nodes=tuple(dict.fromkeys(_NODE.findall(match["nodes"]))),
        stage="other",
        stream=None,
        flops=0,
        dtype=_multiplied_in(inputs, constants),
        is_attention=False,
    )


def _tensors(text: str) -> tuple[KernelTensor, ...]:
    found = []
    for name, dimensions, dtype in _TENSOR.findall(text):
        shape = tuple(int(size) for size in dimensions.split(",") if size)
        if dtype not in _DTYPES:
            raise EngineError(
                f"the build log has a tensor of type {dtype!r}, expected one of {', '.join(_DTYPES)}; report this "
                "with your TensorRT version"
            )
        if any(size < 0 for size in shape):
            raise EngineError(
                f"{name} has the shape {list(shape)} in the build log: the kernels of a dynamic batch have no shapes "
                "before they run; for a report build a plan without --max-batch"
            )
        found.append(KernelTensor(name, shape, _DTYPES[dtype]))
    if len(found) != text.count("{"):
        raise EngineError(
            f"the build log has a tensor in an unknown form: {text[:120]!r}…; report this with your TensorRT version"
        )
    return tuple(found)


def _multiplied_in(inputs: Sequence[KernelTensor], constants: Sequence[KernelTensor]) -> str:
    """The type of the largest operand; scales and biases are small and of other types."""
    operands = inputs or constants
    return max(operands, key=lambda tensor: tensor.elements).dtype if operands else "fp32"


def _computing(kernels: Sequence[Kernel], flops: dict[str, int]) -> dict[str, int]:
    """Which kernel computes each product: of those that name it, one that multiplies, with the most weights.

    Kernels that only bring an operand into the layout that a product wants name its node as well.
    """
    computing: dict[str, int] = {}
    for index, kernel in enumerate(kernels):
        for name in kernel.nodes:
            if name in flops and (name not in computing or _rank(kernel) > _rank(kernels[computing[name]])):
                computing[name] = index
    return computing


def _rank(kernel: Kernel) -> tuple[bool, int]:
    multiplies = kernel.kind in _PRODUCT_KINDS or "gemm" in kernel.name
    return multiplies, sum(tensor.bytes for tensor in kernel.constants)


def _adopt(kernels: Sequence[Kernel]) -> tuple[Kernel, ...]:
    """Kernels that name no node belong to what made their input, else to what takes their output."""
    made = {tensor.name: kernel for kernel in kernels for tensor in kernel.outputs if kernel.stage != "other"}
    taken = {tensor.name: kernel for kernel in kernels for tensor in kernel.inputs if kernel.stage != "other"}
    adopted = []
    for kernel in kernels:
        neighbours = [made[tensor.name] for tensor in kernel.inputs if tensor.name in made]
        neighbours += [taken[tensor.name] for tensor in kernel.outputs if tensor.name in taken]
        if kernel.stage != "other" or not neighbours:
            adopted.append(kernel)
            continue
        adopted.append(dataclasses.replace(kernel, stage=neighbours[0].stage, stream=neighbours[0].stream))
        made.update({tensor.name: adopted[-1] for tensor in kernel.outputs})
    return tuple(adopted)
