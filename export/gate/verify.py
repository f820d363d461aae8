"""Judge an engine on pictures, and write the verdict into its sidecar."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.gate.examine import Examination, examine
from export.gate.inspectors import exact_inspector, open_reference, open_subjects
from export.gate.limits import limits_of
from export.gate.pictures import Picture, Pictures, choose, find_samples, read_with_progress, synthetic
from export.gate.report import table, to_json, worst_sheet
from export.graph.graph import Graph
from runtime.backends import vouched
from stlm_edge.datasets import GOOD, check_masks
from stlm_edge.errors import OutputError, SpecError, VerificationError
from stlm_edge.files import make_folder, sha256, write_text
from stlm_edge.imaging import write_image
from stlm_edge.inspection import Inspector
from stlm_edge.seen import SeenPictures, digest_of
from stlm_edge.sidecar import Gate, Sidecar, rewrite

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verification:
    """What came out of a comparison: the verdict, and what was found, for people."""

    gate: Gate
    lines: tuple[str, ...]


def verify(
    engine: Path,
    *,
    reference: Path,
    data: Path | None,
    category: str | None = None,
    images: int | None = None,
    picture: Path | None = None,
    json_file: Path | None = None,
) -> Verification:
    """Compare an engine with its network, and put the verdict, which may be a refusal, into the engine's sidecar.

    Args:
        engine: an .onnx file, or another engine; one that cannot be run here needs the graph that it was built from
            beside it.
        reference: the checkpoint, or the float32 graph.
        data: pictures, see `export.gate.pictures.find_samples`; None for drawn parts.
        images: at most so many of them.
        picture: a contact sheet of the worst cases is written here.
        json_file: all figures are written here.
    Raises:
        StlmError: if engine, reference or pictures cannot be used, or something cannot be written; the sidecar is then
            as it was.
    """
    sidecar = vouched(engine)
    limits = limits_of(sidecar.engine.precision)
    _try_outputs(picture, json_file)
    if data is None:
        logger.warning("comparing on drawn parts; give --data to compare on your own pictures")
        pictures: Iterable[Picture] = (
            synthetic() if sidecar.spec.frame_size is None else synthetic(sidecar.spec.frame_size)
        )
    else:
        samples = choose(find_samples(data, category), images)
        check_masks(samples)
        pictures = read_with_progress(samples)
    seen = SeenPictures(sidecar.spec)
    with (
        open_reference(reference, spec=sidecar.spec) as opened,
        open_subjects(engine, sidecar, reference=reference) as subjects,
    ):
        examination = examine(
            opened.inspector,
            subjects.inspectors,
            _shown_to(seen, pictures),
            limits=limits,
            host_resized=opened.host_resized,
        )
    if examination.tells_quality:
        seen.warn(engine.name)
    gate = examination.gate(executed=subjects.executed)
    precision = sidecar.engine.precision
    lines = [*table(examination, precision=precision, widened=subjects.widened)]
    if not subjects.executed:
        lines.append(f"{engine.name} itself has not been executed, only its graph")
    _write_picture(examination, sidecar, picture)
    if json_file is not None:
        text = to_json(examination, gate, engine=engine.name, precision=precision, widened=subjects.widened)
        write_text(json_file, text)
    record_gate(engine, gate, known=sidecar)
    return Verification(gate, tuple(lines))


def _shown_to(seen: SeenPictures, pictures: Iterable[Picture]) -> Iterator[Picture]:
    for picture in pictures:
        if picture.label == GOOD:
            seen.add(digest_of(picture.image), name=picture.name)
        yield picture


def judge(engine: Path, *, source: Path, graph: Graph, pictures: Pictures) -> Verification | None:
    """The verdict on an engine that was just made, also in its sidecar; None if there is nothing to judge it by.

    Args:
        source, graph: what it was made from, before its precision was chosen.
    Raises:
        StlmError: see `verify`.
    """
    reference = pictures.reference
    if reference is None:
        record = Sidecar.read(engine).engine
        # A plan in the precision of a given graph is compared with nothing: the graph would vouch for itself.
        differs = record.precision != graph.precision or record.product == "openvino"
        reference = source if graph.content is None or differs else None
    if reference is not None:
        return verify(
            engine,
            reference=reference,
            data=pictures.data,
            category=pictures.category,
            images=pictures.images,
            picture=pictures.worst,
        )
    gate = _gate_of_graph(source)
    if gate is None:
        logger.warning(
            "NOT COMPARED: %s carries no verdict and nothing to compare with; give --reference, a checkpoint or its "
            "graph in fp32",
            source,
        )
        return None
    logger.info("the verdict on the graph is taken over: %s has not been executed", engine.name)
    record_gate(engine, gate)
    return Verification(gate, ())


def _gate_of_graph(graph: Path) -> Gate | None:
    """What was found of a graph when it was exported, or when a plan was built of it elsewhere."""
    engine = graph.with_suffix("") if graph.name.endswith(".plan.onnx") else graph
    try:
        record = Sidecar.read(engine).engine
    except SpecError:
        return None
    known = record.onnx_sha256 if engine != graph else record.engine_sha256
    if record.gate is None or known != sha256(graph):
        return None
    return dataclasses.replace(record.gate, executed=False)


def record_gate(engine: Path, gate: Gate, *, known: Sidecar | None = None) -> None:
    """Put a verdict into the sidecar of an engine, and change nothing else; see `rewrite`."""
    rewrite(
        engine,
        lambda current: dataclasses.replace(current, engine=dataclasses.replace(current.engine, gate=gate)),
        known=known or Sidecar.read(engine),
    )


def require_verified(engine: Path, gate: Gate) -> None:
    """Raises `VerificationError` with the first objections if an engine is not verified."""
    if not gate.verified:
        raise VerificationError(
            f"{engine} is NOT VERIFIED ({_first(gate.objections)}); look at the worst case with --picture, "
            "and export more of it in a higher precision"
        )


def would_verify(graph: Graph, *, reference: Inspector, pictures: Iterable[Picture]) -> bool:
    """Whether a graph that is in memory keeps within the limits of its precision; what it does not keep is logged."""
    with exact_inspector(graph) as inspector:
        gate = examine(reference, [inspector], pictures, limits=limits_of(graph.precision)).gate(executed=False)
    if not gate.verified:
        logger.info("the gate objects: %s", _first(gate.objections))
    return gate.verified


def _first(objections: Sequence[str]) -> str:
    return "; ".join(objections[:3]) + (" …" if len(objections) > 3 else "")


def _try_outputs(picture: Path | None, json_file: Path | None) -> None:
    """Before minutes of work. Raises `OutputError`."""
    for path in (picture, json_file):
        if path is not None:
            make_folder(path.parent)
    if picture is not None and picture.suffix not in (".png", ".jpg"):
        raise OutputError(f"{picture} has the suffix {picture.suffix!r}, expected .png or .jpg; rename the picture")


def _write_picture(examination: Examination, sidecar: Sidecar, path: Path | None) -> None:
    if path is None:
        return
    sheet = worst_sheet(examination, threshold=sidecar.spec.require_threshold().value)
    if sheet is None:
        logger.warning("%s is not written, since no backend has answered", path)
    else:
        write_image(path, sheet)
