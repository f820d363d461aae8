"""A folder of overlays: all of them or those of anomalies alone, within a limit of space."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from runtime.inspection import Inspection
from runtime.part import Part
from runtime.sinks.base import FrameSink, SinkContext, output_options, utc
from runtime.sinks.space import BoundedFiles, time_stamp
from runtime.uri import choice, size_in_bytes
from stlm_edge.errors import OutputError
from stlm_edge.files import make_folder
from stlm_edge.imaging import write_image

Which = Literal["all", "anomalies", "reject", "unclear"]

_DEFAULT_LIMIT = 5 * 10**9
_OPTIONS = {"what": choice("overlays", "raw"), "only": choice(*get_args(Which)), "limit": size_in_bytes(least=10**6)}


class PictureFolder(FrameSink):
    """Writes each overlay as `<time of capture, UTC>-<index>.jpg`, so that the order of names is that of time.

    No picture replaces another, also after a restart, which counts frames from 0 again. When all of them together
    exceed the limit, the oldest are removed; other files in the folder are left alone.
    """

    def __init__(self, path: Path, *, only: Which = "all", limit: int = _DEFAULT_LIMIT) -> None:
        """
        Args:
            only: `anomalies` leaves out frames that are good and have neither alarm nor fault; `reject` and `unclear`
                keep the worst frame of each part that is so.
            limit: bytes.
        Raises:
            OutputError: if the folder cannot be made or written to.
        """
        make_folder(path)
        self._path = path
        self._only = only
        self._files = BoundedFiles(path, rest=r"-\d{6,}", suffixes=[".jpg"], limit=limit)

    @classmethod
    def check(cls, uri: str) -> None:
        output_options(uri, _OPTIONS)

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> PictureFolder:
        """Raises `OutputError` on unknown options too, and for parts where there are none."""
        options = output_options(uri, _OPTIONS)
        options.pop("what", None)  # which has led here
        if options.get("only") in ("reject", "unclear"):
            context.require_parts(uri)
        return cls(Path(uri.partition("?")[0]), **options)

    def write(self, inspection: Inspection) -> bool:
        is_wanted = self._only == "all" or (self._only == "anomalies" and _is_remarkable(inspection))
        if is_wanted:
            self._keep(inspection)
        return is_wanted

    def write_part(self, part: Part) -> bool:
        if part.verdict != self._only or part.worst is None:
            return False
        self._keep(part.worst)
        return True

    def _keep(self, inspection: Inspection) -> None:
        if inspection.picture is None:
            raise OutputError(f"{self._path} is too slow for the line, the pictures of some parts are not kept")
        frame = inspection.frame
        path = self._path / f"{time_stamp(utc(frame.timestamp_s))}-{frame.index:06d}.jpg"
        write_image(path, inspection.picture())
        self._files.add(path)

    def close(self) -> None:
        """Each picture is finished when it is written."""


def _is_remarkable(inspection: Inspection) -> bool:
    anomaly = inspection.anomaly
    is_found = anomaly is not None and (anomaly.is_anomalous or anomaly.is_unclear)
    return is_found or inspection.alarm or inspection.fault is not None
