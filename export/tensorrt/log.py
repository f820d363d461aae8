"""Read the kernels of a plan from the log of the compiler that built it.

A logger that takes verbose messages is told them when a plan is built with `ProfilingVerbosity.DETAILED`, also on a
machine without a GPU. One line is one kernel. TensorRT-RTX writes

    Name: …, LayerType: kgen, Inputs: [ { Name: …, Dimensions: [1,64,64], …, Datatype: Half, Format: … }],
    Constants: […], Outputs: […], TacticName: …, StreamId: 0, Metadata: [ONNX Layer: module|operation][…

and TensorRT, as logs of 9.1 to 11.1 that people have published show it,

    Name: …, LayerType: CaskConvolution, Inputs: [ { Name: …, Location: Device, Dimensions: [1,64,64], Format/Datatype:
    Channel major FP16 format where channel % 8 == 0 }], Outputs: […], …, Weights: {"Type": "Half", "Count": 64}, …

with the types by another name, or by a sentence about the layout, constants among the inputs or as a count, and control
characters between the nodes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence

from export.graph.graph import Graph
from export.graph.parts import node_flops, place
from export.tensorrt.kernels import Kernel, KernelTable, KernelTensor
from stlm_edge.errors import EngineError

_MARK = "LayerType: "
_LIST = r"\[(?P<{}>|.*?\}})\]"  # to the first bracket behind a brace: names may have brackets, and so have shapes
_KERNEL = re.compile(
    rf"Name: (?P<name>.+?), LayerType: (?P<kind>\w+), Inputs: {_LIST.format('inputs')}, "
    rf"(?:Constants: {_LIST.format('constants')}, )?Outputs: {_LIST.format('outputs')}(?P<rest>,.*|$)"
)
_TENSOR = re.compile(
    r"\{ Name: (.+?), (?:Location: \w+, )?Dimensions: \[([-\d,]*)\],[^{}]*?Datatype: ([^,{}]+)[^{}]*\}"
)
_COUNT = re.compile(r'(Weights|Bias): \{"Type": "(\w+)", "Count": (\d+)\}')
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")

_DTYPES = {
    "float": "fp32",
    "fp32": "fp32",
    "half": "fp16",
    "fp16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "fp8": "fp8",
    "int8": "int8",
    "uint8": "uint8",
    "bool": "bool",
    "int32": "int32",
    "int64": "int64",
}
"""The compiler's word in small letters → ours."""

_NO_KERNELS = ("signal", "wait", "Constant", "NoOp")
"""Entries between the plan's CUDA streams, or that only name something; they compute nothing."""

_MULTIPLIES = re.compile("correlation|gemm|runtime_fusion|conv|matrixmultiply")

_LONGEST = 160


def kernel_table(log: Iterable[str], graph: Graph) -> KernelTable:
    """The kernels of a plan.

    Args:
        log: the messages of the build, of one line or several each.
        graph: that was built, in the precision it was built in.
    Raises:
        EngineError: if the log lists no kernels, only such in an unknown form or those of another graph, or if the
            graph is for a dynamic batch, whose kernels have no shapes before they run.
    """
    kernels, unread = parse_kernels(log, taken=[value.name for value in graph.model.graph.input])
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
        unread=tuple(unread),
    )


def kernel_lines(message: str) -> list[str]:
    """The lines of a message that may each tell of a kernel."""
    # Not `splitlines`: the characters that TensorRT puts between nodes would end a line for it.
    return [line for line in message.split("\n") if _MARK in line]


def parse_kernels(log: Iterable[str], *, taken: Collection[str] = ()) -> tuple[list[Kernel], list[str]]:
    """The kernels that a log lists, without what only the graph can tell (`stage`, `flops` and so on are empty).

    Args:
        taken: names of the graph's inputs, which tell them from constants where the log does not.
    Returns:
        The kernels, and the beginnings of the lines in an unknown form.
    Raises:
        EngineError: see `kernel_table`.
    """
    lines = [line for message in log for line in kernel_lines(message)]
    kernels: list[Kernel] = []
    unread: list[str] = []
    for line in lines:
        kernel = _kernel(line)
        if kernel is None:
            unread.append(line.strip()[:_LONGEST])
        elif kernel.kind not in _NO_KERNELS:
            kernels.append(kernel)
    if not kernels:
        found = (
            f"only {len(unread)} kernels in an unknown form, such as {unread[0]!r}…" if unread else "no kernels at all"
        )
        raise EngineError(
            f"the build log lists {found}; expected lines as TensorRT 10.3 to 11.1 or TensorRT-RTX 1.7 write them at "
            "ProfilingVerbosity.DETAILED: build the plan with one of those for a report"
        )
    if not any("], Constants: [" in line for line in lines):
        known = {*taken, *(tensor.name for kernel in kernels for tensor in kernel.outputs)}
        kernels = [_with_constants(kernel, known) for kernel in kernels]
    return kernels, unread


def _kernel(line: str) -> Kernel | None:
    """None if the line is in an unknown form."""
    match = _KERNEL.search(line)
    if match is None:
        return None
    inputs, constants, outputs = (_tensors(match[part] or "") for part in ("inputs", "constants", "outputs"))
    counted = _COUNT.findall(match["rest"])
    if inputs is None or constants is None or outputs is None or any(_dtype(word) is None for _, word, _ in counted):
        return None
    constants += tuple(KernelTensor(name, (int(count),), _dtype(word) or "") for name, word, count in counted)
    return Kernel(
        name=match["name"],
        kind=match["kind"],
        inputs=inputs,
        constants=constants,
        outputs=outputs,
        nodes=tuple(dict.fromkeys(_NODE.findall(match["rest"].partition("Metadata:")[2]))),
        stage="other",
        stream=None,
        flops=0,
        dtype=_multiplied_in(inputs, constants),
        is_attention=False,
    )


def _tensors(text: str) -> tuple[KernelTensor, ...] | None:
    """None if one is in an unknown form, or of an unknown type."""
    found = []
    for name, dimensions, words in _TENSOR.findall(text):
        shape = tuple(int(size) for size in dimensions.split(",") if size)
        if any(size < 0 for size in shape):
            raise EngineError(
                f"{name} has the shape {list(shape)} in the build log: the kernels of a dynamic batch have no shapes "
                "before they run; for a report build a plan without --max-batch"
            )
        dtype = _dtype(words)
        if dtype is None:
            return None
        found.append(KernelTensor(name, shape, dtype))
    return tuple(found) if len(found) == text.count("{ Name: ") else None


def _dtype(words: str) -> str | None:
    """The type in a type's name, or in a sentence about a tensor's layout."""
    return next((_DTYPES[word] for word in re.findall(r"\w+", words.lower()) if word in _DTYPES), None)


def _with_constants(kernel: Kernel, known: Collection[str]) -> Kernel:
    """TensorRT lists constants among the inputs: what is neither the graph's nor any kernel's output is one."""
    constants = tuple(tensor for tensor in kernel.inputs if tensor.name not in known)
    inputs = tuple(tensor for tensor in kernel.inputs if tensor.name in known)
    return dataclasses.replace(kernel, inputs=inputs, constants=constants + kernel.constants)


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
    multiplies = _MULTIPLIES.search(kernel.kind.lower()) is not None or "gemm" in kernel.name
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
