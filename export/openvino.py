"""From the FP32 graph to OpenVINO's own format, for machines without an NVIDIA GPU; and whether it is faster there.

In INT8 only the matrix products are quantised: those of the attentions, the feed-forward layers and the decoder. The
comparison looks for small differences between two streams that hardly differ, and the rounding of pixels or
convolutions to 8 bits is larger than those: on real pictures of magnetic tiles, maps of stlm-tiny keep a correlation of
0.9997 with FP32's like this, of 0.91 with the very first convolution quantised alone, and of 0.71 with everything.
Convolutions but the first would save more time and move scores by 0.15 and more.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import ClassVar, Literal

import numpy as np
import openvino

from export import CALIBRATION_IMAGES
from export.graph.graph import Graph, Precision
from export.precision.calibration import choose_pictures
from runtime.backends.openvino import OpenVinoBackend, has_bf16
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.files import cannot_write, folder_beside, write_bytes
from stlm_edge.imaging import Input, read_image, to_input
from stlm_edge.measure import Schedule, Subject, Work, measure
from stlm_edge.memory import ran_out
from stlm_edge.plate.part import render_part
from stlm_edge.sidecar import EngineRecord, Sidecar, engine_sha256, weights_of
from stlm_edge.signal_stack import kept_signal_stack
from stlm_edge.spec import ModelSpec

CpuPrecision = Literal["fp32", "fp16", "bf16", "int8"]

_BY_CLASS: dict[CpuPrecision, dict[str, str]] = {
    "fp32": {},
    "fp16": {"weights": "fp16", "arithmetic": "fp32"},
    "bf16": {"weights": "fp32", "arithmetic": "bf16"},
    "int8": {"MatMul": "int8", "other": "fp32"},
}

QUANTISED = "MatMul"
"""The type of operation that is quantised."""

MEMORY = "memory|"
"""Beginning of the names of what stays in FP32 all the same: distances to remembered patches are small differences."""

_WITHOUT_ARITHMETIC = ("Constant", "Parameter", "Result")

PICTURES = 4
"""Drawn parts that speed is measured on."""

SCHEDULE = Schedule(turns=8, runs=100, settle=1, turn_s=0.3, loads_apart=False)

NOISE = 0.05
"""Two times are the same if they differ by less than this share: other programs run as well."""

Times = Mapping[CpuPrecision, Sequence[float]]
"""Precision → milliseconds of a picture, the median of each turn; turns of one place were taken one after the other."""


@dataclass(frozen=True)
class OpenVinoBuilder:
    """Makes an `.xml` with its weights in a `.bin`.

    Attributes:
        precision: of the engine; it is made from a graph in float32.
        good: a folder of good pictures, which `int8` measures ranges on.
        count, seed: of their choice, see `choose_pictures`.
    Raises:
        EngineError: if NNCF is missing or the processor lacks the precision.
    """

    suffix: ClassVar[str] = ".xml"

    precision: CpuPrecision = "fp32"
    good: Path | None = None
    count: int = CALIBRATION_IMAGES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision == "int8" and importlib.util.find_spec("nncf") is None:
            raise EngineError(
                "found no nncf, expected it to quantise for OpenVINO; pip install 'stlm-edge[openvino-int8]'"
            )
        if self.precision == "bf16" and not has_bf16():
            raise EngineError(
                "the engine is to run in bf16, which this processor does not have; export it here with --precision auto"
            )

    def precision_of(self, graph: Graph) -> Precision:
        """Of the graph that it is given. Raises `ConfigError` if that has another."""
        if graph.precision != "fp32":
            raise ConfigError(
                f"the graph is in {graph.precision} already; give the checkpoint, or the graph that "
                "'stlm export CHECKPOINT -o GRAPH.onnx' wrote in fp32"
            )
        return "fp32"

    def build(self, graph: Graph, output: Path) -> None:
        """Write `output`, the weights beside it and the sidecar.

        Raises:
            StlmError: if pictures are missing or cannot be used, or the output cannot be written. Killed at any moment
                it leaves the old engine, or files that the runtime refuses.
        """
        content = graph.to_bytes()
        model, version, calibration = openvino.Core().read_model(content), openvino.__version__, None
        if self.precision == "int8":
            if self.good is None:
                raise ConfigError(
                    "INT8 needs good pictures to calibrate on and found none; give --calibration GOOD_PICTURES"
                )
            pictures, calibration = choose_pictures(self.good, count=self.count, seed=self.seed)
            model = quantise(model, pictures, spec=graph.spec)
            version += f", nncf {importlib.metadata.version('nncf')}"
        _write(model, output, compress=self.precision == "fp16")
        record = EngineRecord(
            product="openvino",
            version=version,
            device="cpu",
            precision=self.precision,
            engine_sha256=engine_sha256(output),
            onnx_sha256=hashlib.sha256(content).hexdigest(),
            precision_by_class=_BY_CLASS[self.precision],
            calibration=calibration,
        )
        Sidecar(spec=graph.spec, engine=record).write(output)


def quantise(model: openvino.Model, pictures: Sequence[Path], *, spec: ModelSpec) -> openvino.Model:
    """A copy of `model` in which the matrix products calculate in 8 bits.

    Args:
        pictures: good ones, all of which are looked at.
    Raises:
        ImageError: if one cannot be read.
    """
    # Importing NNCF has torch say that it found no GPU, which nothing here is about.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf  # an extra that only INT8 needs, and seconds to import

    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function also quietens handlers that are not its own
    others = [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() not in (QUANTISED, *_WITHOUT_ARITHMETIC)
        or operation.get_friendly_name().startswith(MEMORY)
    ]

    def read(path: Path) -> Input:
        return to_input(read_image(path), spec=spec)

    with contextlib.redirect_stdout(sys.stderr), kept_signal_stack():  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(pictures, read),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(pictures),
            # Named one by one: by type, NNCF would not know those that it never quantises.
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
            # Without VNNI a processor adds two 8-bit products in 16 bits, which full-range weights overflow.
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )


def _write(model: openvino.Model, output: Path, *, compress: bool) -> None:
    """Write both files, each atomically, weights in FP16 with `compress`. Raises `OutputError`.

    Between the two writes the new weights lie beside the old graph; the sidecar, which is written last and knows the
    hash of both, tells.
    """
    try:
        with folder_beside(output) as folder:
            staged = folder / output.name
            openvino.save_model(model, staged, compress_to_fp16=compress)
            for part in (weights_of(staged), staged):
                assert part is not None
                write_bytes(output.parent / part.name, part.read_bytes())
    except OSError as error:
        raise cannot_write(output, error) from error
    except RuntimeError as error:  # OpenVINO says no more than that it could not
        if ran_out(error):
            raise
        raise cannot_write(output, OSError(str(error))) from error


@dataclass(frozen=True)
class Speed:
    """An engine beside FP32, on this machine.

    Attributes:
        precision: of the engine.
        time_ratios: precision → its time for a picture as a share of FP32's, the median over turns; of the engine, and
            of `bf16` where the processor has that.
    """

    precision: str
    time_ratios: dict[str, float]

    def lines(self) -> Iterator[str]:
        """For people: the figures, and plainly what they mean."""
        name, ratio = self.precision, self.time_ratios[self.precision]
        others = "".join(f", {other} {share:.2f}" for other, share in self.time_ratios.items() if other != name)
        yield f"time on this machine: {name} {ratio:.2f} of fp32's{others}"
        if name == "fp16":
            yield "fp16 halves the file of the weights; the processor calculates in fp32 all the same"
        elif ratio > 1 - NOISE:
            yield f"{name} is NOT FASTER than fp32 on this machine; take --precision fp32"
        elif self.time_ratios.get("bf16", ratio) < ratio - NOISE:
            yield f"{name} is SLOWER than bf16 on this machine; see how far --precision bf16 drifts"


def measure_speed(engine: Path, graph: Graph, *, precision: CpuPrecision) -> Speed:
    """Have an engine and the float32 graph that it was made of take turns on drawn parts.

    Raises `EngineError` if one of them fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder) / "fp32.onnx"
        graph.save(fp32)
        engines: dict[CpuPrecision, Path] = {"fp32": fp32, precision: engine}
        if has_bf16():
            engines.setdefault("bf16", fp32)
        times = time_engines(engines, graph.spec)
    return Speed(precision, {name: median(shares(times, name)) for name in engines if name != "fp32"})


def time_engines(engines: Mapping[CpuPrecision, Path], spec: ModelSpec) -> Times:
    """Have engines of one network take turns on drawn parts, each in its precision and in a process of its own.

    Raises `EngineError` if one of them fails.
    """
    subjects = [Subject(name, partial(_opened, path, spec=spec, precision=name)) for name, path in engines.items()]
    return dict(zip(engines, (found.quantiles(0.5) for found in measure(subjects, SCHEDULE)), strict=True))


def shares(times: Times, precision: CpuPrecision, of: CpuPrecision = "fp32") -> list[float]:
    """The time of one precision as a share of another's, turn by turn."""
    return [own / other for own, other in zip(times[precision], times[of], strict=True)]


@contextmanager
def _opened(path: Path, *, spec: ModelSpec, precision: str) -> Iterator[Work]:
    """An engine's inferences alone, on pictures that are prepared before."""
    batches = [
        to_input(render_part(np.random.default_rng(seed), size=spec.picture_size, defect=None).image, spec=spec)
        for seed in range(PICTURES)
    ]
    with OpenVinoBackend(path, spec=spec, precision=precision) as backend:
        yield Work.timed(lambda index: backend.infer(batches[index % len(batches)]))
