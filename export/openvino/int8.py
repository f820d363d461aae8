"""INT8 for OpenVINO: which layers are quantised, and the ranges of their inputs measured on good pictures.

Only the matrix products are: those of the attentions, the feed-forward layers and the decoder. The comparison looks for
small differences between two streams that hardly differ, and the rounding of pixels or convolutions to 8 bits is larger
than those: on real pictures of magnetic tiles, maps of stlm-tiny keep a correlation of 0.9997 with FP32's like this, of
0.91 with the very first convolution quantised alone, and of 0.71 with everything. Convolutions but the first would save
more time and move scores by 0.15 and more.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import openvino

from stlm_edge.imaging import Input, read_image, to_input
from stlm_edge.signal_stack import kept_signal_stack
from stlm_edge.spec import ModelSpec

QUANTISED = "MatMul"
"""The type of operation that is quantised."""

_WITHOUT_ARITHMETIC = ("Constant", "Parameter", "Result")


def quantise(model: openvino.Model, pictures: Sequence[Path], *, spec: ModelSpec) -> openvino.Model:
    """A copy of `model` in which the matrix products calculate in 8 bits.

    Args:
        pictures: good ones, all of which are looked at.
    Raises:
        ImageError: if one cannot be read.
    """
    # Importing NNCF has torch say that it found no GPU, which nothing here is about.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function also quietens handlers that are not its own
    others = [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() not in (QUANTISED, *_WITHOUT_ARITHMETIC)
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
