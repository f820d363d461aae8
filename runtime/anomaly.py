"""What the detector says of a frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from runtime.regions import Region, find_regions
from runtime.stitching import stitched
from stlm_edge.imaging import Map, resize_map
from stlm_edge.spec import Size

if TYPE_CHECKING:
    from runtime.area import Area
    from runtime.backends.base import Maps
    from runtime.tiling import Tiling


_NOTEBOOK_SIDE = 512
"""Pixels of a picture in a notebook at most."""
_GROUND = 96


@dataclass(frozen=True)
class Latency:
    """How long the stages of one inspection took, in milliseconds; of a batch, each frame has the times of the whole.

    Attributes:
        prepare_ms: from the frame to the network's input.
        upload_ms, download_ms: to the GPU and back; 0 on a processor.
        infer_ms: the network, with its pre- and post-processing inside the graph; of tiles, all of them and their
            transfers, as long as nothing else was done meanwhile.
        decide_ms: from the answer to the verdict; of tiles, stitching their maps too.
    """

    prepare_ms: float
    upload_ms: float
    infer_ms: float
    download_ms: float
    decide_ms: float

    @property
    def total_ms(self) -> float:
        """All of them together."""
        return self.prepare_ms + self.upload_ms + self.infer_ms + self.download_ms + self.decide_ms


@dataclass(frozen=True, eq=False, repr=False)
class Anomaly:
    """What was found in one frame. All threads may read it; what it hands out is not to be written to.

    Attributes:
        score: of the whole frame, or of what is inspected of it; higher is more anomalous.
        is_anomalous: the score has reached the threshold.
        network_map: (h, w) float32, as the network gives it; of a frame in tiles, (N, h, w).
        frame_size: (height, width) of the frame.
        threshold: of the score, and of the map for `regions`.
        area: what is inspected of the frame; None for all of it.
        tiling: the tiles that the frame was cut into; None for one picture.
        unclear_from: the score, below the threshold, from which on a frame is unclear; None where none is called so.
    """

    score: float
    is_anomalous: bool
    network_map: Map | Maps
    frame_size: Size
    latency: Latency
    threshold: float
    area: Area | None = None
    tiling: Tiling | None = None
    unclear_from: float | None = None

    @property
    def is_unclear(self) -> bool:
        """Not anomalous, and not surely good either: the score lies between both thresholds."""
        return not self.is_anomalous and self.unclear_from is not None and self.score >= self.unclear_from

    @cached_property
    def anomaly_map(self) -> Map:
        """(H, W) float32 in frame pixels, 0 outside of the area; made when it is first asked for."""
        enlarged = resize_map(self.coarse_map, self.frame_size)
        return enlarged if self.area is None else enlarged * self.area.mask

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Where the map reaches the threshold, highest peak first; looked for when they are first asked for.

        The score is a mean over the highest pixels: one of them may reach the threshold on a good frame, and on an
        anomalous one that is smaller than the network's input, none need do so.
        """
        if self.network_map.max() < self.threshold:
            return ()
        inspected = None if self.area is None else self.area.mask
        return find_regions(self.coarse_map, frame_size=self.frame_size, threshold=self.threshold, inspected=inspected)

    def __repr__(self) -> str:
        verdict = "anomalous" if self.is_anomalous else "unclear" if self.is_unclear else "good"
        size = f"{self.frame_size[0]} x {self.frame_size[1]}"
        return f"<Anomaly {verdict}: score {self.score:.3f}, threshold {self.threshold:.3f}, frame {size}>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: verdict, score and map, without the frame, which an anomaly does not keep."""
        from runtime.overlay import draw_overlay  # which draws what this module makes

        scale = min(1.0, _NOTEBOOK_SIDE / max(self.frame_size))
        ground = np.full((*(max(1, round(side * scale)) for side in self.frame_size), 3), _GROUND, np.uint8)
        return cv2.imencode(".png", draw_overlay(ground, self, threshold=self.threshold, fps=None))[1].tobytes()

    @property
    def coarse_map(self) -> Map:
        """(h, w) of the whole frame, outside of the area too."""
        return self.network_map if self.tiling is None else stitched(self.network_map, self.tiling)
