"""What the teacher made of pictures that come back, on disk: bounded, and safe to delete at any time."""

from __future__ import annotations

import logging
import os
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from stlm_edge.errors import OutputError
from stlm_edge.files import cache_folder, write_bytes
from stlm_edge.network.decoder import Features

logger = logging.getLogger(__name__)

SUFFIX = ".features"
_CHECK = "crc32"
COUNTED_EVERY = 16
"""Files written between two looks at the folder."""


def default_folder() -> Path:
    """Of all teachers' features: `teacher-features` beside the fetched weights."""
    return cache_folder() / "teacher-features"


def _check_sum(key: str, tensors: dict[str, Tensor]) -> str:
    """Of the picture's key, names, shapes and values; what is wrong there would be learnt from every epoch anew."""
    found = zlib.crc32(key.encode())
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


class FeatureCache:
    """One file for each picture, named by the picture's content, in a folder named by what computed it.

    Files that no run has used for longest go first when space is wanted. What this run uses stays: a training passes
    through its pictures in turn, and dropping the oldest would drop just what comes next. So where a run's own features
    fill the space, the rest is computed anew each time.

    Args:
        folder: of all teachers' features.
        identity: of weights and precision, for the folder's name.
        limit_bytes: for everything below `folder`.
    """

    def __init__(self, folder: Path, identity: str, *, limit_bytes: int) -> None:
        self._root = folder
        self._folder = folder / identity
        self._limit_bytes = limit_bytes
        self._mine: set[Path] = set()
        self._writable = True
        self._written = 0
        self._count()

    def get(self, key: str, device: torch.device) -> Features | None:
        """The features on `device`, or None if they are not there or damaged."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                said = (file.metadata() or {}).get(_CHECK)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
            if said != _check_sum(key, tensors):
                return None
            os.utime(path)  # used last just now
        except (OSError, SafetensorError):
            return None
        self._mine.add(path)
        return tuple(tensors[name].to(device) for name in sorted(tensors))

    def put(self, key: str, features: Features) -> None:
        """Keep features, each (C, h, w). Where they cannot be written, one warning says so and the run goes on."""
        size = sum(feature.numel() * feature.element_size() for feature in features)
        if not self._writable or not self._make_room(size):
            return
        path = self._path(key)
        tensors = {f"layer{index}": feature.cpu().contiguous() for index, feature in enumerate(features, start=1)}
        try:
            write_bytes(path, serialised(tensors, metadata={_CHECK: _check_sum(key, tensors)}))
            self._used_bytes += path.stat().st_size
            self._mine.add(path)
            self._written += 1
            if self._written % COUNTED_EVERY == 0:
                self._count()
        except (OutputError, OSError) as error:
            self._stop(f"the teacher's features are computed anew each time: {error}")

    def _count(self) -> None:
        """Look how full it is; other processes write too."""
        self._used_bytes = sum(size for _, size, _ in self._files())

    def _make_room(self, size: int) -> bool:
        if self._used_bytes + size <= self._limit_bytes:
            return True
        unused = sorted(entry for entry in self._files() if entry[2] not in self._mine)
        for _, bytes_there, path in unused:
            path.unlink(missing_ok=True)
            self._used_bytes -= bytes_there
            if self._used_bytes + size <= self._limit_bytes:
                return True
        self._stop(
            f"{self._root} is full with {self._used_bytes / 1e9:.1f} GB of this training's features; the others are "
            "computed anew each time; raise --teacher-cache-gb"
        )
        return False

    def _stop(self, reason: str) -> None:
        self._writable = False
        logger.warning("%s", reason)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each file was used last (seconds), how large it is and where."""
        entries = []
        for path in self._root.glob(f"*/*{SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            entries.append((status.st_mtime, status.st_size, path))
        return entries
