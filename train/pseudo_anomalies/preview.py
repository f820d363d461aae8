"""What a training would see: pseudo anomalies in one's own pictures, to look at before hours are spent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stlm_edge.datasets import load_category
from stlm_edge.drawing import contact_sheet, draw_regions
from stlm_edge.imaging import Image, write_image
from train.augment import rotate, rotation_for, variation_of
from train.config import TrainConfig
from train.data import load_images
from train.pseudo_anomalies.choice import pseudo_anomalies_of
from train.pseudo_anomalies.textures import texture_source

MOST_PICTURES = 12
"""Spread over the training pictures, which are often sorted by day or by light."""


def preview(
    config: TrainConfig, *, data: Path, category: str | None, textures: Path | None, output: Path, count: int
) -> Path:
    """Draw a contact sheet: good picture, with a pseudo anomaly, where it is; `count` rows for each kind.

    The good pictures are shown as the training turns, mirrors and lights them.

    Returns:
        `output`, written as a picture.
    Raises:
        StlmError: in the words of whatever is wrong with pictures, textures or the output.
    """
    loaded = load_category(data, category)
    turn = rotation_for(config.rotation, loaded.name)
    samples = loaded.train[:: -(-len(loaded.train) // MOST_PICTURES)]
    images = load_images(samples, size=config.image_size, skip_corrupt=config.skip_corrupt)
    source = texture_source(textures)
    variation = variation_of(config)
    rng = np.random.default_rng(config.seed)
    rows: list[list[Image]] = []
    captions: list[str] = []
    for kind in sorted(set(config.pseudo_anomalies.split("+"))):
        drawer = pseudo_anomalies_of(config, images=images, textures=source, category=loaded.name, kinds=[kind])
        for index in range(count):
            normal = rotate(rng, variation.draw(rng, images[index % len(images)]), turn)
            pseudo, mask = drawer.draw(rng, normal)
            rows.append([normal, pseudo, draw_regions(pseudo, mask.astype(np.float32), threshold=0.5)])
            captions.append(f"{kind}\n{100 * mask.mean():.2g} % of the picture")
    titles = ("good picture", "pseudo anomaly", "its mask")
    write_image(output, contact_sheet(rows, titles=titles, captions=captions))
    return output
