"""What builds a plan: TensorRT 10.3 to 11 (`tensorrt`) or TensorRT-RTX (`tensorrt_rtx`).

Differences are found by looking for a feature, never by comparing versions. Precision is none of them: it stands in the
graph, every network is strongly typed, and `BuilderFlag.FP16` and `INT8`, which TensorRT 11 no longer has, are not
needed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from export.graph.graph import INPUT
from export.tensorrt.memory import IF_KILLED, MemoryLimits
from stlm_edge.errors import EngineError
from stlm_edge.gpu_errors import CHECK_DRIVER, remedy_for
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import (
    INSTALL,
    MODULES,
    PORTABLE,
    TITLES,
    Gpu,
    OnLog,
    ProductName,
    import_product,
    process_logger,
)

logger = logging.getLogger(__name__)

ProductChoice = Literal["auto", "tensorrt", "tensorrt-rtx"]


@dataclass
class _Phase:
    name: str
    steps: int
    done: int = 0


class BuildProgress:
    """What TensorRT tells during a build, and the way to stop it; written by the build's threads, read by another one.

    Phases lie within phases; together they are one fraction of the whole.

    Attributes:
        fraction: 0 … 1, never falling: each phase counts as one step of the phase around it.
        phase: the innermost phase, empty before the first.
        cancelled: whether the build has been asked to stop.
    """

    def __init__(self) -> None:
        self.fraction = 0.0
        self.phase = ""
        self.cancelled = False
        self._open: list[_Phase] = []
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Let the build end at its next step."""
        self.cancelled = True

    def start(self, name: str, steps: int) -> None:
        with self._lock:
            self._open.append(_Phase(name, max(steps, 1)))
            self.phase = name

    def step(self, name: str, step: int) -> bool:
        """Step number `step` of a phase is done; returns whether the build is to go on."""
        with self._lock:
            for phase in self._open:
                if phase.name == name:
                    phase.done = min(step + 1, phase.steps)
            self._update()
        return not self.cancelled

    def finish(self, name: str) -> None:
        with self._lock:
            for phase in reversed(self._open):
                if phase.name == name:
                    self._open.remove(phase)
                    break
            if not self._open:
                self.fraction = 1.0

    def _update(self) -> None:
        fraction, share = 0.0, 1.0
        for phase in self._open:
            fraction += share * phase.done / phase.steps
            share /= phase.steps
        self.fraction = max(self.fraction, min(fraction, 1.0))


@dataclass(frozen=True)
class Compiled:
    """What a build gives.

    Attributes:
        plan: the engine as TensorRT serialises it.
        timing_cache: what is to be kept for the next build, None where no cache was given.
    """

    plan: bytes
    timing_cache: bytes | None


@dataclass(frozen=True)
class Product:
    """One installed TensorRT."""

    name: ProductName
    module: Any

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    def __str__(self) -> str:
        return f"{TITLES[self.name]} {self.version}"

    @property
    def known_targets(self) -> tuple[str, ...]:
        """The compute capabilities it builds for without such a GPU (`sm86`); none if it needs the GPU itself."""
        if not hasattr(self.module, "ComputeCapability"):
            return ()
        names = self.module.ComputeCapability.__members__
        return tuple(sorted((name.lower() for name in names if name.startswith("SM")), key=lambda name: int(name[2:])))

    @property
    def keeps_timings(self) -> bool:
        """Whether it measures kernels while it builds; TensorRT-RTX has a cache for that too, which does nothing."""
        return self.name == "tensorrt"

    def device(self, targets: Sequence[str], *, gpu: Gpu | None) -> str:
        """What the plan will be for, as `EngineRecord.device` says it.

        Args:
            targets: the compute capabilities asked for; none for what the product does by itself.
            gpu: of this machine.
        Raises:
            EngineError: if it cannot build for that.
        """
        known = self.known_targets
        if targets:
            if not known:
                raise EngineError(
                    f"{self} builds only for the GPU that it runs on, found --target {','.join(targets)}; leave it out "
                    "on a machine with such a GPU, or build with --product tensorrt-rtx"
                )
            if not set(targets) <= set(known):
                raise EngineError(
                    f"found --target {','.join(targets)}, {self} builds for {', '.join(known)}; choose among those"
                )
            return ",".join(targets)
        if self.name == "tensorrt-rtx":
            return PORTABLE
        if gpu is None:
            raise EngineError(
                f"{self} builds for the GPU that it runs on and found none; build on the machine that will run the "
                "plan, or for an RTX card with --product tensorrt-rtx --target sm86"
            )
        return gpu.compute_capability

    def compile(
        self,
        graph: bytes,
        *,
        spec: ModelSpec,
        targets: Sequence[str] = (),
        limits: MemoryLimits | None = None,
        timing_cache: bytes | None = None,
        portability: str | None = None,
        progress: BuildProgress | None = None,
        on_log: OnLog | None = None,
    ) -> Compiled:
        """Build a plan, strongly typed and with all that the plan report needs; takes seconds to minutes.

        Args:
            graph: an ONNX model as bytes.
            spec: of the graph; its `max_batch` makes the profile of a dynamic batch.
            targets: see `device`.
            limits: of the memory that the build takes; None for what the GPU has.
            timing_cache: of an earlier build, `b""` for a new one, None to do without.
            portability: name of a `HardwareCompatibilityLevel`; None for a plan for one model of GPU.
            progress: told of each phase; its `cancel` ends the build.
            on_log: given every message.
        Raises:
            EngineError: if the graph cannot be read or built, the build was cancelled, or the timing cache is not of
                this GPU and version.
        """
        trt, limits = self.module, limits or MemoryLimits()
        errors: list[str] = []
        log = process_logger(trt, errors, on_log)
        try:
            builder = trt.Builder(log)
        except (TypeError, RuntimeError) as error:  # what a binding does with a null pointer
            told = [*errors, str(error)]
            raise self._failed("start", told, remedy_for("; ".join(told)) or CHECK_DRIVER) from error
        network = parser = config = serialized = None
        try:
            network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            parser = trt.OnnxParser(network, log)
            if not parser.parse(graph):
                remedy = "export it again: stlm export CHECKPOINT -o GRAPH.onnx"
                raise self._failed("read the graph", _parser_errors(parser) or errors, remedy)
            config = self._config(builder, spec=spec, targets=targets, limits=limits)
            if portability is not None:
                config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.__members__[portability]
            if timing_cache is not None and not _set_timing_cache(config, timing_cache):
                remedy = "it is damaged or of another GPU or version; delete it or name another"
                raise self._failed("use the timing cache", errors, remedy)
            progress = progress or BuildProgress()
            config.progress_monitor = _monitor(trt, progress)
            serialized = builder.build_serialized_network(network, config)
            if progress.cancelled:
                raise EngineError("the build was cancelled; start it again")
            if serialized is None:
                limit = "" if limits.workspace is None else f"give more than --workspace {limits.workspace}, or "
                remedy = f"{limit}build it in another precision or for another GPU"
                remedy += "" if limits.tactics is None else f"; {IF_KILLED}"
                raise self._failed("build the graph", errors, remedy_for("; ".join(errors)) or remedy)
            for message in errors:
                logger.warning("%s: %s", self, message)
            timings = None if timing_cache is None else bytes(config.get_timing_cache().serialize())
            return Compiled(bytes(serialized), timings)
        finally:
            # An exception that is kept would keep them alive, and TensorRT hangs if the garbage collector frees them
            # while it is logging.
            del serialized, config, parser, network, builder

    def _config(self, builder: Any, *, spec: ModelSpec, targets: Sequence[str], limits: MemoryLimits) -> Any:
        trt, config = self.module, builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        # On by default, it rounds the factors of each product of a float32 graph to ten bits.
        config.clear_flag(trt.BuilderFlag.TF32)
        if limits.workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limits.workspace << 20)
        if limits.tactics is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, limits.tactics << 20)
        if targets:
            config.num_compute_capabilities = len(targets)
            for index, target in enumerate(targets):
                config.set_compute_capability(trt.ComputeCapability.__members__[target.upper()], index)
        if spec.max_batch > 1:
            profile = builder.create_optimization_profile()
            one, most = ((batch, *spec.picture_size, 3) for batch in (1, spec.max_batch))
            profile.set_shape(INPUT, one, most, most)
            config.add_optimization_profile(profile)
        return config

    def _failed(self, action: str, reasons: Iterable[str], remedy: str) -> EngineError:
        told = "; ".join(dict.fromkeys(reasons)) or "it gives no reason"
        return EngineError(f"{self} cannot {action} ({told}); {remedy}")


def find_product(name: ProductChoice) -> Product:
    """The TensorRT of this machine; `auto` takes TensorRT where it is installed, else TensorRT-RTX, and logs which.

    Raises:
        EngineError: if it is not installed, or does not work.
    """
    names: tuple[ProductName, ...] = tuple(MODULES) if name == "auto" else (name,)
    for candidate in names:
        module = import_product(candidate)
        if module is not None:
            product = Product(candidate, module)
            if name == "auto":
                logger.info("found %s", product)
            return product
    wanted = "neither TensorRT nor TensorRT-RTX" if name == "auto" else f"no {TITLES[names[0]]}"
    raise EngineError(f"found {wanted}, expected one to build a plan; {'. '.join(INSTALL[each] for each in names)}")


def _set_timing_cache(config: Any, content: bytes) -> bool:
    """Whether `config` takes the content of a timing cache."""
    cache = config.create_timing_cache(content)
    return cache is not None and config.set_timing_cache(cache, False)


def _parser_errors(parser: Any) -> list[str]:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return [
        f"{' '.join(error.desc().split())}" + (f" at node {error.node_name()}" if error.node_name() else "")
        for error in errors
    ]


def _monitor(trt: Any, progress: BuildProgress) -> Any:
    """An `IProgressMonitor` that hands on what it is told."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of whichever module there is
        def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
            progress.start(phase, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            return progress.step(phase, step)

        def phase_finish(self, phase: str) -> None:
            progress.finish(phase)

    return Monitor()
