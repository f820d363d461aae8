"""INT8 for as much of a network as the gate accepts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import onnx

from export.gate.pictures import Picture, choose, find_samples, read
from export.gate.reference import open_reference
from export.gate.verify import would_bless
from export.graph.onnx_model import spec_of
from export.precision.apply import PrecisionRecord
from export.precision.sensitivity import calibrated, harms, quantise_as_much_as, table
from export.sources import Pictures, Source
from stlm_edge.errors import ConfigError
from stlm_edge.imaging import Image, to_input
from stlm_edge.inspection import Answer

logger = logging.getLogger(__name__)


class Remembered:
    """What has been answered to pictures before."""

    def __init__(self, name: str, pictures: Sequence[Picture], answers: Sequence[Answer]) -> None:
        self.name = name
        self._answers = {id(picture.image): answer for picture, answer in zip(pictures, answers, strict=True)}

    def inspect(self, image: Image) -> Answer:
        """To one of those very arrays."""
        return self._answers[id(image)]


def quantise_automatically(source: Source, pictures: Pictures) -> tuple[onnx.ModelProto, PrecisionRecord]:
    """Quantise one layer class after the other, the least harmful first, as long as the gate accepts.

    Each candidate is run on the processor, in INT8 and FP16 as a GPU rounds.

    Args:
        source: in float32.
    Returns:
        The graph and its record; in FP16 alone, with a warning, if not even one class is accepted.
    Raises:
        ConfigError: if there are no good pictures to calibrate on, or none for the gate.
        StlmError: if a picture cannot be used, or ModelOpt is missing or fails.
    """
    good = pictures.good()
    if good is None or pictures.data is None:
        raise ConfigError(
            "INT8 needs good pictures to calibrate on and pictures for the gate, found none; give --data with a data "
            "set, or --data and --calibration"
        )
    spec = spec_of(source.model, source.path)
    given = calibrated(source.model, good, count=pictures.calibration_images, seed=pictures.seed)
    judged = list(read(choose(find_samples(pictures.data, pictures.category), pictures.images)))
    with open_reference(pictures.reference or source.path, spec=spec) as reference:
        wanted = [reference.inspector.inspect(picture.image) for picture in judged]

    remembered = Remembered("reference", judged, wanted)

    def accept(model: onnx.ModelProto) -> bool:
        return would_bless(model, spec=spec, precision="int8", reference=remembered, pictures=judged)

    found = harms(given, [to_input(picture.image, spec=spec) for picture in judged])
    logger.info("what INT8 does to each layer class, errors against FP32:\n%s", table(found))
    order = {row.layer_class: place for place, row in enumerate(found)}
    classes = sorted(given.classes(), key=lambda name: order[name])
    model, record = quantise_as_much_as(accept, given=given, order=classes)
    if record.precision != "int8":
        logger.warning("NOTHING IN INT8: the gate accepts not even one layer class, so all of it is in FP16")
    return model, record
