"""Judge an engine on pictures, and write the verdict into its sidecar."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from export.answers import Answers, open_answers
from export.gate import Examination, examine
from export.gate_report import table, to_json, worst_sheet
from export.limits import LIMITS, limits_of
from export.pictures import Picture, choose, find_samples, read, read_with_progress, synthetic
from export.reference import open_reference
from export.subjects import exact_answers, open_subjects
from runtime.backends import vouched
from stlm_edge.errors import OutputError, VerificationError
from stlm_edge.files import make_folder, write_text
from stlm_edge.imaging import write_image
from stlm_edge.sidecar import Gate, Sidecar, rewrite
from stlm_edge.spec import ModelSpec, Size

if TYPE_CHECKING:
    import onnx

    from stlm_edge.network.inspector import Inspector

logger = logging.getLogger(__name__)

EXPORT_IMAGES = 8
"""Of the pictures, how many an export is compared on."""


def verify(
    engine: Path,
    *,
    reference: Path,
    data: Path,
    category: str | None = None,
    images: int | None = None,
    picture: Path | None = None,
    json_file: Path | None = None,
) -> Gate:
    """Compare an engine with its network, print what was found, and put the verdict into the engine's sidecar.

    Args:
        engine: an .onnx file, or another engine; one that cannot be run here needs the graph that it was built from
            beside it.
        reference: the checkpoint, or the float32 graph.
        data: pictures, see `export.pictures.find_samples`.
        images: at most so many of them.
        picture: a sheet of the worst cases is written here.
        json_file: all figures are written here.
    Returns:
        The verdict, which may be a refusal.
    Raises:
        StlmError: if engine, reference or pictures cannot be used, or something cannot be written; the sidecar is then
            as it was.
    """
    sidecar = vouched(engine)
    limits = limits_of(sidecar.engine.precision)
    _try_outputs(picture, json_file)
    samples = choose(find_samples(data, category), images)
    with (
        open_reference(reference, spec=sidecar.spec) as opened,
        open_subjects(engine, sidecar, reference=reference) as subjects,
    ):
        examination = examine(
            opened.answers,
            subjects.answers,
            read_with_progress(samples),
            limits=limits,
            host_resized=opened.host_resized,
        )
    gate = examination.gate(executed=subjects.executed)
    precision = sidecar.engine.precision
    for line in table(examination, precision=precision, widened=subjects.widened):
        click.echo(line)
    if not subjects.executed:
        click.echo(f"{engine.name} itself has not been executed, only its graph")
    _write_picture(examination, sidecar, picture)
    if json_file is not None:
        text = to_json(examination, gate, engine=engine.name, precision=precision, widened=subjects.widened)
        write_text(json_file, text)
    rewrite(
        engine,
        lambda current: dataclasses.replace(current, engine=dataclasses.replace(current.engine, gate=gate)),
        known=sidecar,
    )
    return gate


def require_blessed(engine: Path, gate: Gate) -> None:
    """Raises `VerificationError` with the first objections if an engine is not blessed."""
    if not gate.blessed:
        raise VerificationError(
            f"{engine} is NOT BLESSED ({_first(gate.objections)}); look at the worst case with --picture, "
            "and export more of it in a higher precision"
        )


def export_pictures(data: Path | None, *, frame_size: Size | None) -> Iterable[Picture]:
    """What an export is compared on: pictures of a folder, else drawn parts. Raises `DataError` for an empty one."""
    if data is None:
        return synthetic() if frame_size is None else synthetic(frame_size)
    return read(choose(find_samples(data, None), EXPORT_IMAGES))


def verify_export(inspector: Inspector, graph: Path, pictures: Iterable[Picture], *, spec: ModelSpec) -> Gate:
    """Compare a float32 graph that is not yet in its place with the network it came from, by ONNX Runtime.

    Raises:
        VerificationError: if the graph is not blessed.
        DataError: if there is no picture, or one cannot be used.
    """
    from export.network_answers import NetworkAnswers, ResizingNetworkAnswers

    host = NetworkAnswers(inspector)
    resizing = None if spec.frame_size is None else ResizingNetworkAnswers(inspector, spec.frame_size)
    with open_answers(graph, spec=spec, backend="onnxruntime", name="onnxruntime") as answers:
        examination = examine(
            resizing or host,
            [answers],
            pictures,
            limits=LIMITS["fp32"],
            host_resized=host if resizing else None,
        )
    gate = examination.gate(executed=True)
    if not gate.blessed:
        raise VerificationError(
            f"ONNX Runtime and PyTorch differ ({_first(gate.objections)}); nothing was written, report this with your "
            "torch version"
        )
    return gate


def would_bless(
    model: onnx.ModelProto, *, spec: ModelSpec, precision: str, reference: Answers, pictures: Iterable[Picture]
) -> bool:
    """Whether a graph that is still in memory keeps within the limits of a precision; nothing is written or printed."""
    with exact_answers(model, spec=spec) as answers:
        examination = examine(reference, [answers], pictures, limits=limits_of(precision))
    return examination.gate(executed=False).blessed


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
