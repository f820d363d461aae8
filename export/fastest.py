"""`--precision auto`: the fastest precision of the processor that exports, if its answers are the network's.

How fast each is on this very machine is measured, and not believed of what the processor says that it has.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from export.gate.pictures import Pictures
from export.gate.verify import Verification, judge
from export.graph.graph import Graph, GraphOptions
from export.openvino import NOISE, CpuPrecision, OpenVinoBuilder, Times, shares, time_engines
from export.pipeline import open_source, tell_of_chosen_threshold
from export.publish import publish
from runtime.backends.openvino import has_bf16
from stlm_edge.errors import VerificationError
from stlm_edge.files import folder_beside, folder_for
from stlm_edge.sidecar import Gate
from stlm_edge.spec import ModelSpec

logger = logging.getLogger(__name__)

Builders = dict[CpuPrecision, OpenVinoBuilder]
Timer = Callable[[Mapping[CpuPrecision, Path], ModelSpec], Times]


@dataclass(frozen=True)
class Fastest:
    """What came of it besides the engine's files.

    Attributes:
        reason: why this precision, for people.
        gate: the verdict on the engine, no refusal.
        lines: what the gate found of each precision that it was asked about, and how fast all are.
    """

    precision: CpuPrecision
    reason: str
    gate: Gate
    lines: tuple[str, ...]


def export_fastest(
    source: Path,
    output: Path,
    *,
    pictures: Pictures | None = None,
    options: GraphOptions | None = None,
    timer: Timer = time_engines,
) -> Fastest:
    """Make an `.xml` in the fastest precision of this machine that the gate accepts.

    Args:
        source, output, pictures, options: see `export`.
        timer: as by default it starts processes, a script that calls this needs `if __name__ == "__main__":`.
    Raises:
        VerificationError: if the gate does not even accept float32.
        StlmError: see `export`.
    """
    pictures = pictures or Pictures()
    graph = open_source(source, output, suffix=OpenVinoBuilder.suffix, pictures=pictures, options=options)
    builders, left_out = builders_here(pictures)
    builders["fp32"].precision_of(graph)  # refuses a graph that has another
    times = _time(graph, builders, timer, beside=output)
    tell_of_chosen_threshold(output)
    verdicts: dict[CpuPrecision, str] = {}
    lines: tuple[str, ...] = ()
    for precision in fastest_first(times):
        try:
            found = _publish(builders[precision], source, output, graph=graph, pictures=pictures)
        except VerificationError as error:
            lines += error.lines
            if precision == "fp32" or not error.objections:
                error.lines = lines
                raise
            verdicts[precision] = f"refused ({error.objections[0]})"
        else:
            break
    reason = _reason(precision, tried=tuple(times), refused=tuple(verdicts))
    verdicts[precision] = "verified"
    return Fastest(precision, reason, found.gate, (*lines, *found.lines, *table(times, verdicts), *left_out))


def builders_here(pictures: Pictures) -> tuple[Builders, list[str]]:
    """What can be made for this machine, in order of preference; and a line for each precision that cannot.

    FP16 is none of them: a processor calculates it in float32.
    """
    good = pictures.good()
    exact = OpenVinoBuilder(good=good, count=pictures.calibration_images, seed=pictures.seed)
    builders: Builders = {"fp32": exact}
    left_out = []
    if has_bf16():
        builders["bf16"] = replace(exact, precision="bf16")
    else:
        left_out.append("bf16 is not tried: this processor does not have it")
    if importlib.util.find_spec("nncf") is None:
        left_out.append("int8 is not tried: found no nncf, which quantises; pip install 'stlm-edge[openvino-int8]'")
    elif good is None:
        left_out.append(
            "int8 is not tried: found no good pictures to calibrate on; give --data with a data set, or --calibration"
        )
    else:
        builders["int8"] = replace(exact, precision="int8")
    return builders, left_out


def fastest_first(times: Times) -> list[CpuPrecision]:
    """The order in which the gate is asked: by time; where that is the same, the order stays."""
    order: list[CpuPrecision] = []
    for precision in times:
        place = len(order)
        while place and is_faster(times, precision, order[place - 1]):
            place -= 1
        order.insert(place, precision)
    return order


def is_faster(times: Times, precision: CpuPrecision, than: CpuPrecision) -> bool:
    """By more than the noise: in the median by more than `NOISE`, and in all turns but one.

    Of two that are the same, one is ahead in seven of eight turns or more in 4 % of all cases.
    """
    found = sorted(shares(times, precision, than))
    return median(found) < 1 - NOISE and found[-2] < 1


def table(times: Times, verdicts: Mapping[CpuPrecision, str]) -> Iterator[str]:
    """How fast each precision is here, and what the gate said of it; the fastest first."""
    yield "time on this machine as a share of fp32's [lowest, highest turn], and the gate:"
    for precision in fastest_first(times):
        found = shares(times, precision)
        span = f"[{min(found):.2f}, {max(found):.2f}]"
        yield f"{precision}  {median(found):.2f} {span}  {verdicts.get(precision, 'not judged')}"


def _time(graph: Graph, builders: Builders, timer: Timer, *, beside: Path) -> Times:
    """In a folder beside the engine, where the next run removes what a killed one has left."""
    with folder_for(beside.parent), folder_beside(beside.absolute()) as folder:
        engines = {name: folder / f"{name}.xml" for name in builders}
        for name, path in engines.items():
            replace(builders[name], count=1).build(graph, path)  # ranges do not change how fast it is
        logger.info("timing %s in turns on this machine", ", ".join(engines))
        return timer(engines, graph.spec)


def _publish(builder: OpenVinoBuilder, source: Path, output: Path, *, graph: Graph, pictures: Pictures) -> Verification:
    found = publish(
        output,
        write=lambda path: builder.build(graph, path),
        judge=lambda path: judge(path, source=source, graph=graph, pictures=pictures),
    )
    assert found is not None  # what OpenVINO runs is always compared
    return found


def _reason(precision: CpuPrecision, *, tried: tuple[CpuPrecision, ...], refused: tuple[CpuPrecision, ...]) -> str:
    if len(tried) == 1:
        return "since no other precision can be tried here"
    if precision != "fp32":
        return "the fastest of this machine that the gate accepts" if refused else "the fastest of this machine"
    if refused:
        return f"since the gate refuses {' and '.join(refused)}, which this machine is faster in"
    return "since nothing is faster on this machine by more than the noise"
