"""An engine takes its place only when it is verified; until then it stands beside it under another name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.gate.verify import Verification
from export.tensorrt.kernels import kernels_path
from stlm_edge.errors import OutputError, VerificationError
from stlm_edge.files import cannot_write, folder_for, remove_left_over
from stlm_edge.sidecar import Sidecar, weights_of
from stlm_edge.tensorrt import kept_graph


def unverified_name(engine: Path) -> Path:
    """Where an engine stands that is not verified, or not yet: `stlm.plan` → `stlm.unverified.plan`."""
    return engine.with_name(f"{engine.stem}.unverified{engine.suffix}")


def publish(
    output: Path, *, write: Callable[[Path], None], judge: Callable[[Path], Verification | None]
) -> Verification | None:
    """Write an engine beside its place, have it judged, and move it there.

    Args:
        write: writes the engine and everything that belongs to it, its sidecar last.
        judge: says whether it may take its place; None if there is nothing to judge it by.
    Returns:
        The verdict, which is no refusal.
    Raises:
        VerificationError: if it is refused, with what was found; the engine stays under `unverified_name`, and what was
            at `output` as it was.
        StlmError: if it cannot be written or judged.
    """
    with folder_for(output.parent):
        if output.is_dir():
            raise OutputError(f"{output} is a folder, expected a place for a file; give the output another name")
        beside = unverified_name(output)
        for path in files_of(
            output.with_name(f"{output.stem}.unblessed{output.suffix}")
        ):  # as earlier versions called it
            path.unlink(missing_ok=True)
        for path in (*files_of(beside), *files_of(output)):
            remove_left_over(path)
        write(beside)
        try:
            found = judge(beside)
        except BaseException:  # not refused but not judged: nothing to look at
            for path in files_of(beside):
                path.unlink(missing_ok=True)
            raise
        if found is not None and not found.gate.verified:
            objections = found.gate.objections
            is_exact = Sidecar.read(beside).engine.precision == "fp32"
            remedy = (
                "export in another form (.onnx, .xml) to see whose fault it is"
                if is_exact
                else ("export in a higher precision")
            )
            raise VerificationError(
                f"{output} is NOT VERIFIED ({'; '.join(objections[:3])}{' …' if len(objections) > 3 else ''}); "
                f"the engine is kept as {beside.name} to look at, and nothing was written to {output.name}; "
                f"{remedy}",
                lines=found.lines,
                objections=objections,
            )
        _move(beside, output)
        return found


def _move(engine: Path, place: Path) -> None:
    """Rename all files of an engine; with the sidecar last, whatever stops this leaves a pair that is refused."""
    pairs = list(zip(files_of(engine), files_of(place), strict=True))
    try:
        for source, target in pairs:
            if source.exists():
                source.replace(target)
            else:
                target.unlink(missing_ok=True)  # of an older engine, which had one
    except OSError as error:
        raise cannot_write(place, error) from error


def files_of(engine: Path) -> list[Path]:
    """Everything that may belong to an engine, its sidecar last."""
    belonging = [weights_of(engine)] if weights_of(engine) is not None else []
    if engine.suffix == ".plan":
        belonging += [kept_graph(engine), kernels_path(engine)]
    return [*(path for path in belonging if path is not None), engine, Sidecar.path_for(engine)]
