"""What TensorRT-RTX has compiled for this GPU, kept on disk: the first start takes seconds, the next ones do not."""

from __future__ import annotations

import logging
import re
from typing import Any

from stlm_edge.errors import OutputError
from stlm_edge.files import cache_folder, write_bytes
from stlm_edge.sidecar import EngineRecord

logger = logging.getLogger(__name__)


class KernelCache:
    """The file of one engine's compiled kernels on one GPU. It saves time and nothing else, so no failure is fatal.

    Errors are logged as text: a log's record would hold the cache by the traceback, longer than CUDA is there.

    Attributes:
        cache: what TensorRT-RTX fills.
    """

    def __init__(self, record: EngineRecord, *, gpu: str, cache: Any) -> None:
        """Fill `cache`, an `IRuntimeCache`, with what an earlier start has kept.

        Args:
            gpu: its name.
        """
        device = re.sub(r"[^0-9A-Za-z]+", "-", gpu).strip("-")
        name = f"{record.engine_sha256[:16]}-{record.version}-{device}.kernels"
        self.cache: Any = cache
        self._path = cache_folder() / record.product / name
        self._kept = b""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            logger.warning(
                "the kernels kept for TensorRT-RTX cannot be read, so they are compiled again (%s)", str(error)
            )
            return
        if cache.deserialize(content):
            self._kept = content
        else:
            logger.warning("%s is damaged or of another driver, so its kernels are compiled again", self._path)

    def save(self) -> None:
        """Keep what has been compiled, if that is more than what was read."""
        try:
            serialized = self.cache.serialize()
            content = b"" if serialized is None else bytes(serialized)
            if content and content != self._kept:
                write_bytes(self._path, content)
                self._kept = content
        except (OutputError, RuntimeError) as error:
            logger.warning("kernels are not kept, so the next start compiles them again: %s", str(error))
