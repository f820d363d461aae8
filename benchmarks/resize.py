"""Why pictures are resized as they are: distance to PIL's anti-aliased bilinear filter, and time.

python -m benchmarks.resize PICTURES --size 256
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from stlm_edge.cli import run

REPEATS = 30


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--size", default=256, show_default=True, type=click.IntRange(32), help="Side to resize to.")
@click.option("--pictures", default=40, show_default=True, type=click.IntRange(1), help="How many of FOLDER.")
def command(folder: Path, size: int, pictures: int) -> None:
    """Compare the rule with OpenCV's filters on pictures of FOLDER, and time them at 1920 x 1080 to 1024 x 1024."""
    import cv2
    import numpy as np
    from PIL import Image as PilImage

    from stlm_edge.datasets import texture_paths
    from stlm_edge.imaging import Image, read_image, resize
    from stlm_edge.spec import Size

    def opencv(flag: int) -> Callable[[Image, Size], Image]:
        return lambda image, wanted: np.asarray(cv2.resize(image, wanted[::-1], interpolation=flag), np.uint8)

    rules = {"halve-linear": resize, "INTER_LINEAR": opencv(cv2.INTER_LINEAR), "INTER_AREA": opencv(cv2.INTER_AREA)}
    paths = texture_paths(folder)
    images = [read_image(path) for path in paths[:: max(1, len(paths) // pictures)][:pictures]]
    bilinear = PilImage.Resampling.BILINEAR
    wanted = [np.asarray(PilImage.fromarray(image).resize((size, size), bilinear), np.int16) for image in images]
    frame = resize(images[0], (1080, 1920))
    click.echo(f"{len(images)} pictures to {size} x {size}; levels of 255 away from PIL's bilinear filter")
    click.echo(f"{'rule':<14}{'mean':>8}{'p99.9':>8}{'ms':>8}")
    for name, rule in rules.items():
        apart = [
            np.abs(rule(image, (size, size)).astype(np.int16) - reference)
            for image, reference in zip(images, wanted, strict=True)
        ]
        times_ms = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            rule(frame, (1024, 1024))
            times_ms.append(1e3 * (time.perf_counter() - start))
        mean, tail = np.mean([a.mean() for a in apart]), np.mean([np.quantile(a, 0.999) for a in apart])
        click.echo(f"{name:<14}{mean:>8.2f}{tail:>8.1f}{np.median(times_ms):>8.2f}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
