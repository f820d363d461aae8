"""Training a method with anomalib's own steps, losses and optimisers, for a limited time."""

from __future__ import annotations

import ctypes
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.alternatives.alternative import as_tensor
from benchmarks.alternatives.building import build
from benchmarks.alternatives.methods import Backbone, Method
from stlm_edge.datasets import texture_paths
from stlm_edge.errors import DataError, TrainingError, WeightsError
from stlm_edge.imaging import read_image
from stlm_edge.spec import Size

if TYPE_CHECKING:
    from torch.utils.data import Dataset

HELD_OUT = 10
"""Every so manieth training picture is kept from EfficientAD's training, to find its maps' normal range with."""

READABLE = frozenset({".png", ".jpg", ".jpeg"})
"""Suffixes of textures that anomalib reads."""


_M_MMAP_THRESHOLD = -3
"""From malloc.h."""


@dataclass(frozen=True)
class Fitted:
    """What came of a training.

    Attributes:
        network: anomalib's, in evaluation mode.
        minutes: wall-clock time of the training, without building the network.
        epochs, steps: that were begun, and done.
    """

    network: Any
    minutes: float
    epochs: int
    steps: int


def fit(
    method: Method,
    train: Sequence[Path],
    *,
    backbone: Backbone,
    size: Size,
    textures: Path | None,
    minutes: float,
    coreset: float,
    seed: int,
) -> Fitted:
    """Train a method on good pictures.

    Args:
        textures: a folder tree of pictures of other things; not None for the methods that need them.
        minutes: the training ends after so many, or after as many epochs as its authors trained; a method that only
            passes over the pictures once does so whatever it takes.
        coreset: share of all patches that PatchCore remembers.
    Raises:
        DataError: if pictures are too few or cannot be read.
        WeightsError: if what the method starts from cannot be had.
        TrainingError: if the trained state has numbers that are not finite.
    """
    import lightning.pytorch as pl
    import torch

    pl.seed_everything(seed, verbose=False)
    with tempfile.TemporaryDirectory() as scratch, _quiet(), _blocks_given_back():
        links = _linked(textures, Path(scratch)) if textures is not None else Path(scratch)
        module = build(method, backbone=backbone, size=size, textures=links, with_weights=True)
        if method.name == "patchcore":
            module.coreset_sampling_ratio = coreset
        if method.name == "efficientad":
            if backbone == "published":
                _load_teacher(module)
            module.prepare_pretrained_model = lambda: None  # it has its teacher, or keeps a random one
        held_out = list(train[::HELD_OUT]) if method.name == "efficientad" else []
        pictures = [path for path in train if path not in set(held_out)]
        if not pictures:
            raise DataError(f"found {len(train)} training pictures, expected at least 2")
        data = _data_module(module, train=pictures, held_out=held_out, batch=method.batch)
        module.pre_processor = None  # the pictures are prepared already; as a callback it would do so again
        trainer = pl.Trainer(
            **{
                "accelerator": "auto",
                "devices": 1,
                "max_epochs": method.epochs,
                "max_steps": method.steps,
                "min_epochs": 0,
                "max_time": None if method.epochs == 1 else {"seconds": max(1, round(60 * minutes))},
                "limit_val_batches": 0,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "default_root_dir": scratch,
                **module.trainer_arguments,
            }
        )
        start_s = time.perf_counter()
        try:
            trainer.fit(module, datamodule=data)
        except SystemExit:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None
        if held_out:
            module.eval()
            module.model.quantiles.update(module.map_norm_quantiles(data.val_dataloader()))
        minutes = (time.perf_counter() - start_s) / 60
    network = module.model.cpu().eval()
    broken = [name for name, tensor in network.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise TrainingError(f"{method.name} has numbers that are not finite in {broken[0]}; try another --seed")
    return Fitted(network, minutes, epochs=trainer.current_epoch, steps=trainer.global_step)


def _load_teacher(module: Any) -> None:
    """Fetch EfficientAD's teacher, or take the one that anomalib fetched before. Raises `WeightsError`."""
    try:
        module.prepare_pretrained_model()
    except Exception as error:  # whatever a download raises
        raise WeightsError(
            f"the published teacher of EfficientAD cannot be had ({type(error).__name__}: {error}); connect to the "
            "internet, or choose --backbone efficientnet-lite0 or random, which leave it random"
        ) from None


def _linked(textures: Path, scratch: Path) -> Path:
    """A folder of links to all the textures, in one subfolder, as anomalib's two ways to read them both can."""
    folder = scratch / "textures"
    (folder / "all").mkdir(parents=True)
    paths = [path for path in texture_paths(textures) if path.suffix.lower() in READABLE]
    if not paths:
        raise DataError(f"{textures} has no picture that ends in .png, .jpg or .jpeg; give another folder of textures")
    for index, path in enumerate(paths):
        (folder / "all" / f"{index:06d}{path.suffix.lower()}").symlink_to(path.resolve())
    return folder


def _data_module(module: Any, *, train: Sequence[Path], held_out: Sequence[Path], batch: int) -> Any:
    import lightning.pytorch as pl
    import torch
    from anomalib.data import ImageBatch
    from torch.utils.data import DataLoader

    trained, kept_back = (
        cast("Dataset[Path]", list(train)),
        cast("Dataset[Path]", list(held_out)),
    )  # lists serve as well
    transform = module.pre_processor.transform
    prepared = {path: transform(as_tensor(read_image(path)))[0] for path in (*train, *held_out)}

    def collate(paths: list[Path]) -> Any:
        labels = torch.zeros(len(paths), dtype=torch.bool)
        return ImageBatch(image=torch.stack([prepared[path] for path in paths]), gt_label=labels)

    class Pictures(pl.LightningDataModule):  # type: ignore[misc]  # lightning may not be there
        train_batch_size = batch  # EfficientAD asks for it

        def train_dataloader(self) -> Any:
            return DataLoader(trained, batch_size=batch, shuffle=True, collate_fn=collate)

        def val_dataloader(self) -> Any:
            return DataLoader(kept_back, batch_size=1, collate_fn=collate)

    return Pictures()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' advice: on workers, loggers and the like, which is not for who runs a benchmark."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric", "anomalib")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _blocks_given_back() -> Iterator[None]:
    """Large blocks of memory go back to the system when they are freed, where the C library is GNU's.

    PatchCore's choice of patches takes and frees one at each of thousands of steps, and keeps a few bytes behind each.
    By default glibc takes blocks of less than 32 MB out of one heap: on 20 pictures of 256 x 256 that grew to 20 GB.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        yield
        return
    set_option(_M_MMAP_THRESHOLD, 4 << 20)
    try:
        yield
    finally:
        set_option(_M_MMAP_THRESHOLD, 32 << 20)  # where glibc's own adjustment ends
