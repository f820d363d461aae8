"""From a graph to a TensorRT plan; needs neither torch nor the network, which is how a Jetson builds again."""

from __future__ import annotations

import hashlib
import logging
import platform
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

from export.graph.graph import MOST_TOP_K, Graph, Precision
from export.tensorrt.kernels import kernels_path, write_kernels
from export.tensorrt.log import kernel_lines, kernel_table
from export.tensorrt.memory import MemoryLimits, memory_limits
from export.tensorrt.portability import Portability, choose_portability
from export.tensorrt.product import BuildProgress, Compiled, Product, ProductChoice, find_product
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.files import cannot_write, make_folder, replacing, write_bytes
from stlm_edge.progress import fraction_bar
from stlm_edge.sidecar import BuildMachine, EngineRecord, Sidecar
from stlm_edge.tensorrt import Gpu, OnLog, find_gpu, kept_graph

logger = logging.getLogger(__name__)

_REFRESH_S = 0.2


class _Chosen(NamedTuple):
    product: Product
    gpu: Gpu | None
    device: str
    portability: Portability | None


@dataclass(frozen=True)
class PlanBuilder:
    """Makes a `.plan`. Its precision is that of the graph: written into it before, never chosen by the build.

    Attributes:
        precision: of the graph that it is given; None for the one that the source has.
        product: which TensorRT builds.
        targets: compute capabilities to build for (`sm86`); none for the GPU of this machine with TensorRT, for every
            GPU from compute capability 8.0 on with TensorRT-RTX.
        workspace_mib: scratch memory of a layer at most, in MiB; None for what the GPU has, and where it shares the
            system's memory for half of what is free.
        timing_cache: file of kernel timings that is read if it is there and written again; TensorRT only.
        portable: have other models of GPU run the plan too, which may cost speed; TensorRT only.
    """

    suffix: ClassVar[str] = ".plan"

    precision: Precision | None = None
    product: ProductChoice = "auto"
    targets: tuple[str, ...] = ()
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    portable: bool = False

    def precision_of(self, graph: Graph) -> Precision:
        if graph.spec.top_k > MOST_TOP_K:
            raise ConfigError(
                f"found a score that is the mean of the {graph.spec.top_k} highest pixels (top_k), TensorRT takes "
                f"{MOST_TOP_K} at most; train with a smaller top_k, or run the network as .onnx or .xml on a processor"
            )
        assert self._chosen  # what cannot be built with or for is told before minutes of calibration
        return self.precision or graph.precision

    @cached_property
    def _chosen(self) -> _Chosen:
        """What builds, and for what. Raises `StlmError` for what does not go together or is not there."""
        product, gpu = find_product(self.product), find_gpu()
        device = product.device(self.targets, gpu=gpu)
        if self.timing_cache is not None and not product.keeps_timings:
            raise ConfigError(
                f"{product} measures nothing while it builds, so it has no timing cache; found --timing-cache "
                f"{self.timing_cache}, leave it out"
            )
        return _Chosen(product, gpu, device, choose_portability(product, device) if self.portable else None)

    def build(self, graph: Graph, output: Path, *, on_log: OnLog | None = None) -> None:
        """Write the plan `output`, its sidecar, and beside them its list of kernels and the graph it was built from.

        The sidecar takes the place of an older one last: whatever stops this, an older engine stays as it was, or the
        plan is refused because its sidecar does not match.

        Args:
            on_log: given severity and text of every message of the verbose build, by another thread than the caller's.
        Raises:
            StlmError: if the graph, the settings or the place to write to cannot be used, or the build fails.
            KeyboardInterrupt: after Ctrl-C, when TensorRT has ended; nothing was written then.
        """
        product, gpu, device, portability = self._chosen
        timings = None if self.timing_cache is None else _read_timings(self.timing_cache)
        limits = memory_limits(self.workspace_mib, gpu)
        make_folder(output.parent)
        content = graph.to_bytes()
        kernels: list[str] = []

        def keep(severity: str, message: str) -> None:
            kernels.extend(kernel_lines(message))  # and not the rest, which is long
            if on_log is not None:
                on_log(severity, message)

        logger.info("building %s for %s with %s; Ctrl-C cancels", output, device, product)
        if graph.precision == "fp32":
            logger.info("it will be in FP32, as the graph is; --precision fp16 moves about half the bytes")
        try:
            compiled = _compile(
                product,
                content,
                graph=graph,
                builder=self,
                limits=limits,
                timings=timings,
                portability=portability,
                title=output.name,
                on_log=keep,
            )
        except EngineError as error:
            raise EngineError(f"{output}: {error}") from error
        if self.timing_cache is not None and compiled.timing_cache is not None:
            write_bytes(self.timing_cache, compiled.timing_cache)
        record = EngineRecord(
            product=product.name,
            version=product.version,
            device=device if portability is None else portability.device,
            precision=graph.precision,
            engine_sha256=hashlib.sha256(compiled.plan).hexdigest(),
            onnx_sha256=hashlib.sha256(content).hexdigest(),
            precision_by_class=graph.record.by_class,
            calibration=graph.record.calibration,
            built_on=_build_machine(gpu) if product.name == "tensorrt" else None,
            portability=None if portability is None else portability.words,
        )
        write_engine(output, plan=compiled.plan, graph=content, sidecar=Sidecar(spec=graph.spec, engine=record))
        _write_kernels(output, kernels, graph)


def write_engine(output: Path, *, plan: bytes, graph: bytes, sidecar: Sidecar) -> None:
    """Write a plan, the ONNX graph it was built from and its sidecar, in the order that `PlanBuilder.build` promises.

    Raises `OutputError`; older files are as they were then.
    """
    with replacing(kept_graph(output)) as graph_file, replacing(output) as plan_file:
        graph_file.write_bytes(graph)
        plan_file.write_bytes(plan)
    sidecar.write(output)


def _build_machine(gpu: Gpu | None) -> BuildMachine | None:
    if gpu is None or gpu.multiprocessors is None:
        return None
    return BuildMachine(platform.machine(), gpu.name, gpu.multiprocessors)


def _write_kernels(plan: Path, lines: list[str], graph: Graph) -> None:
    """What `python -m export report` tells of a plan stands in the log of its build, and nowhere else without a GPU."""
    try:
        table = kernel_table(lines, graph)
    except EngineError as error:  # a plan is none the worse for a log that cannot be read
        logger.warning("NO REPORT of the kernels of %s: %s", plan, error)
        kernels_path(plan).unlink(missing_ok=True)
        return
    if table.unread:
        logger.warning(
            "the report of %s lacks %d of %d kernels, whose lines in the log are in an unknown form; stlm report shows "
            "some of them",
            plan,
            len(table.unread),
            len(table.unread) + len(table.kernels),
        )
    write_kernels(plan, table)


def _compile(
    product: Product,
    content: bytes,
    *,
    graph: Graph,
    builder: PlanBuilder,
    limits: MemoryLimits,
    timings: bytes | None,
    portability: Portability | None,
    title: str,
    on_log: OnLog | None,
) -> Compiled:
    """Build in another thread, since Python handles Ctrl-C in the main one, and only between its own instructions."""
    progress, handler = BuildProgress(), signal.getsignal(signal.SIGINT)
    with fraction_bar(title) as show, ThreadPoolExecutor(max_workers=1) as pool:
        built = pool.submit(
            product.compile,
            content,
            spec=graph.spec,
            targets=builder.targets,
            limits=limits,
            timing_cache=timings,
            portability=None if portability is None else portability.level,
            progress=progress,
            on_log=on_log,
        )
        while not built.done():
            try:
                wait([built], timeout=_REFRESH_S)
                show(progress.fraction, progress.phase)
            except KeyboardInterrupt:
                progress.cancel()
                # Raising it again here would end the interpreter under the feet of TensorRT's thread.
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                logger.warning("cancelling at TensorRT's next step; Ctrl-C again ends the program at once")
    if progress.cancelled:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt
    return built.result()


def _read_timings(path: Path) -> bytes:
    """The content of a timing cache, empty for a new one."""
    make_folder(path.parent)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise cannot_write(path, error) from error
