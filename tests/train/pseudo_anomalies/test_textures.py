"""Textures of a folder: what is kept, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from stlm_edge.imaging import write_image
from train.pseudo_anomalies import textures as module
from train.pseudo_anomalies.textures import FolderTextures

SIZE = (32, 48)


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for index, path in enumerate(paths):
        write_image(path, np.full((20, 20, 3), 40 * index, np.uint8))
    return paths


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files that are decoded, in order."""
    names: list[str] = []
    original = module.read_image
    monkeypatch.setattr(module, "read_image", lambda path: [names.append(path.name), original(path)][1])
    return names


def levels(source: FolderTextures, count: int, seed: int = 0) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(source.draw(rng, SIZE)[0, 0, 0]) for _ in range(count)]


def test_textures_are_decoded_once_while_there_is_room(paths, read):
    assert set(levels(FolderTextures(paths), 100)) == {0, 40, 80, 120, 160, 200}
    assert len(read) == 6


def test_what_is_kept_is_bounded_and_makes_no_difference_to_what_is_drawn(paths, read):
    three = FolderTextures(paths, cache_bytes=3 * 32 * 48 * 3)
    drawn = levels(three, 100)
    assert drawn == levels(FolderTextures(paths), 100)
    assert 6 < len(read) < 80
    none = FolderTextures(paths, cache_bytes=0)
    read.clear()
    assert levels(none, 50) == drawn[:50]
    assert len(read) == 50


def test_those_longest_not_drawn_make_way(paths, read):
    source = FolderTextures(paths, cache_bytes=2 * 32 * 48 * 3)

    class Given:
        """Draws the numbers it is given."""

        def __init__(self, *numbers: int) -> None:
            self.numbers = list(numbers)

        def integers(self, _: int) -> int:
            return self.numbers.pop(0)

    given = Given(0, 1, 0, 2, 0, 1)
    while given.numbers:
        source.draw(given, SIZE)
    assert read == ["0.png", "1.png", "2.png", "1.png"]


def test_what_is_drawn_does_not_depend_on_what_was_found_unreadable_before(paths, caplog):
    paths[2].write_bytes(b"")
    source = FolderTextures(paths)
    first = levels(source, 40)
    assert levels(source, 40) == first
    assert 80 not in first
    assert caplog.text.count("2.png") == 1
