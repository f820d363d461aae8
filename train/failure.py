"""What a step saw whose losses were no numbers, for a person to look at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from torch import Tensor

from stlm_edge.drawing import contact_sheet, draw_regions
from stlm_edge.files import write_text
from stlm_edge.imaging import write_image
from train.data import Batch


def save_failure(folder: Path, batch: Batch, values: Tensor, *, epoch: int, step: int) -> Path:
    """Write the pictures of a batch as they were, a sheet of them, and the losses that they gave.

    Args:
        values: (3,), plain, denoising, segmentation.
    Returns:
        The folder of this step, below `folder`.
    Raises:
        OutputError: if it cannot be written.
    """
    place = folder / f"epoch-{epoch}-step-{step}"
    rows = []
    for index in range(len(batch)):
        clean, pseudo = batch.clean[index].cpu().numpy(), batch.pseudo[index].cpu().numpy()
        mask = batch.mask[index, 0].cpu().numpy()
        write_image(place / f"{index}-clean.png", clean)
        write_image(place / f"{index}-pseudo.png", pseudo)
        write_image(place / f"{index}-mask.png", np.repeat((255 * mask).astype(np.uint8)[:, :, None], 3, axis=2))
        rows.append([clean, pseudo, draw_regions(pseudo, mask, threshold=0.5)])
    captions = [str(index) for index in range(len(rows))]
    write_image(place / "sheet.png", contact_sheet(rows, titles=("clean", "pseudo", "mask"), captions=captions))
    names = ("plain", "denoising", "segmentation")
    losses = {name: str(value) for name, value in zip(names, values.tolist(), strict=True)}
    write_text(place / "losses.json", json.dumps({"epoch": epoch, "step": step} | losses, indent=2) + "\n")
    return place
