"""Frames that show nothing to inspect: black, over-exposed, or the same one again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from stlm_edge.imaging import Image

if TYPE_CHECKING:
    from runtime.inspection import Fault
    from runtime.sources import Frame

_SAMPLES = 48
"""Rows and columns of pixels that are looked at of every frame."""
_NOTHING = 8
"""Mean of a sensor without light: its black level and noise. A dark material is brighter."""
_DARK = 32
"""Noise comes up to here with much gain."""
_FEW = 0.001
"""Share of values that may be brighter all the same: hot pixels."""
_CELLS = 6
_FLAT = 5
"""What the means of 6 x 6 cells may differ by. A mean of 64 noisy values varies by an eighth of what they do, so this
covers noise of 8 grey values, while the outline of a part is more."""
_SPOT = 32
"""A spot of 4 x 4 pixels that is so bright is something to inspect. One hot pixel makes no more than 16 of it."""
_FROZEN_FRAMES = 10
_FROZEN_S = 10.0
"""Noise never repeats, but a stream hiccups, and of a scene that stands still some encoders send nothing new until
their next key frame, which comes every one to four seconds."""


class FaultDetector:
    """Tells frames of a camera that has a fault from those of a part; to be shown every frame, in order.

    It looks at 48 x 48 pixels of a frame, and at all of them only where these show a fault.

    - `black`: the mean is below 8 and all values but one in a thousand below 32, nothing has an outline, and no spot of
      4 x 4 pixels reaches 32. A dark field in which a scratch shines, or a part can just be seen, is not.
    - `over-exposed`: the same seen from white, so a mean above 247. A back light behind the smallest
      part is not; a back light with nothing before it cannot be told from it, and is.
    - `frozen`: the very same pixels for 10 frames and 10 seconds.

    Of 324 photographs of magnetic tiles, many of them dark, none is called faulty, nor at a quarter of its light.
    """

    def __init__(self) -> None:
        self._first: Frame | None = None
        self._sample: Image = np.empty((0, 0, 3), np.uint8)
        self._repeats = 0
        self._is_frozen = False

    def check(self, frame: Frame) -> Fault | None:
        """What is wrong with `frame`, which must not be written to afterwards; None if nothing is."""
        rows, columns = (max(1, side // _SAMPLES) for side in frame.image.shape[:2])
        sample = np.ascontiguousarray(frame.image[rows // 2 :: rows, columns // 2 :: columns])
        is_frozen = self._repeats_itself(frame, sample)
        if _is_dark(sample) and _is_flat(sample) and _spots(frame.image).max() < _SPOT:
            return "black"
        if _is_bright(sample) and _is_flat(sample) and _spots(frame.image).min() > 255 - _SPOT:
            return "over-exposed"
        return "frozen" if is_frozen else None

    def _repeats_itself(self, frame: Frame, sample: Image) -> bool:
        first = self._first
        is_same_size = first is not None and frame.image.shape == first.image.shape
        if first is None or not (is_same_size and np.array_equal(sample, self._sample)):
            self._start(frame, sample)
            return False
        self._repeats += 1
        is_due = self._repeats >= _FROZEN_FRAMES and frame.timestamp_s - first.timestamp_s >= _FROZEN_S
        if not (is_due or self._is_frozen):
            return False
        # The sample may miss the few pixels that change.
        if not np.array_equal(frame.image, first.image):
            self._start(frame, sample)
            return False
        self._is_frozen = True
        return True

    def _start(self, frame: Frame, sample: Image) -> None:
        self._first, self._sample = frame, sample
        self._repeats, self._is_frozen = 1, False


def _is_dark(sample: Image) -> bool:
    return bool(np.count_nonzero(sample >= _DARK) <= _FEW * sample.size and sample.mean() < _NOTHING)


def _is_bright(sample: Image) -> bool:
    return bool(np.count_nonzero(sample <= 255 - _DARK) <= _FEW * sample.size and sample.mean() > 255 - _NOTHING)


def _is_flat(sample: Image) -> bool:
    """Whether there is no outline, whatever noise there is."""
    cells = _reduced(sample, rows=_CELLS, columns=_CELLS).reshape(_CELLS**2, -1).astype(np.int16)
    return bool(np.ptp(cells, axis=0).max() < _FLAT)


def _spots(image: Image) -> Image:
    """Means of 4 x 4 pixels."""
    height, width = image.shape[:2]
    return _reduced(image, rows=max(1, height // 4), columns=max(1, width // 4))


def _reduced(image: Image, *, rows: int, columns: int) -> Image:
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
