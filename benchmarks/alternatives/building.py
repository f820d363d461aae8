"""A method as anomalib builds it, with the backbone that was asked for."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks.alternatives.lite0 import MEAN, STD, load_features, read_weights
from benchmarks.alternatives.methods import LITE0, Backbone, Method
from stlm_edge.errors import ConfigError, WeightsError
from stlm_edge.spec import Size

INSTALL = (
    "python -m venv .alternatives && .alternatives/bin/pip install -e '.[train,export,openvino]' "
    "-r benchmarks/requirements-alternatives.txt && "
    ".alternatives/bin/pip install --force-reinstall --no-deps opencv-python"
)
"""What makes the environment; the last step, since anomalib brings another OpenCV that overwrites ours."""


def require_anomalib() -> None:
    """Raises `ConfigError`, if anomalib is not installed."""
    if importlib.util.find_spec("anomalib") is None:
        raise ConfigError(
            f"anomalib is not installed here; it wants an environment of its own, which this makes: {INSTALL}"
        )


def build(method: Method, *, backbone: Backbone, size: Size, textures: Path, with_weights: bool) -> Any:
    """anomalib's Lightning module of a method: `.model` is its network, `.pre_processor.transform` its preparation.

    Args:
        size: (height, width) of the input.
        textures: a folder that is there; only the training of methods that need textures looks into it.
        with_weights: load what the method starts from; False where a trained state will replace all of it.
    Raises:
        WeightsError: if what the method starts from cannot be had.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # anomalib imports what is deprecated
        import anomalib.models

    kind = getattr(anomalib.models, method.network)
    takes_lite0 = method.backbone_name(backbone) == LITE0
    published = with_weights and backbone == "published" and method.backbone is not None
    pre_processor = kind.configure_pre_processor(size)
    if takes_lite0:
        _normalise_for_lite0(pre_processor)
    arguments = _arguments(method, takes_lite0=takes_lite0, textures=textures)
    parts = {"pre_processor": pre_processor, "post_processor": False, "evaluator": False, "visualizer": False}
    try:
        with nullcontext() if published else _no_published_weights():
            module = kind(**arguments, **parts)
    except Exception as error:  # whatever a hub's client raises where there is no way to it
        if not published:
            raise
        raise WeightsError(
            f"the published weights of {method.backbone} cannot be had ({type(error).__name__}: {error}); connect to "
            "the internet, or choose --backbone efficientnet-lite0 or random"
        ) from None
    if takes_lite0 and method.name == "fastflow":
        _let_fastflow_take_lite0(module.model, method=method, size=size)
    if takes_lite0 and with_weights:
        load_features(_features(module.model), read_weights())
    return module


def _arguments(method: Method, *, takes_lite0: bool, textures: Path) -> dict[str, Any]:
    if method.name == "draem":
        return {"dtd_dir": textures}
    if method.name == "efficientad":
        return {"imagenet_dir": textures}
    if not takes_lite0 or method.name == "fastflow":
        return {"backbone": method.backbone}
    arguments: dict[str, Any] = {"backbone": LITE0, "layers": list(method.lite0_layers)}
    if method.name == "padim":
        arguments["n_features"] = 100  # as anomalib has it for its default, which is a small network too
    return arguments


@contextmanager
def _no_published_weights() -> Iterator[None]:
    """Backbones are built with random weights. All methods load some by default, and one has no argument against it."""
    import timm

    original = timm.create_model

    @wraps(original)
    def create_model(*arguments: Any, **settings: Any) -> Any:
        return original(*arguments, **{**settings, "pretrained": False})

    timm.create_model = create_model
    try:
        yield
    finally:
        timm.create_model = original


def _normalise_for_lite0(pre_processor: Any) -> None:
    from torchvision.transforms.v2 import Compose, Normalize

    kept = [step for step in pre_processor.transform.transforms if not isinstance(step, Normalize)]
    pre_processor.transform = Compose([*kept, Normalize(mean=list(MEAN), std=list(STD))])


def _let_fastflow_take_lite0(network: Any, *, method: Method, size: Size) -> None:
    """anomalib's FastFlow knows four backbones by name; what depends on the backbone is made anew, by its own rules."""
    import timm
    from anomalib.models.image.fastflow.torch_model import create_fast_flow_block
    from torch import nn

    extractor: Any = timm.create_model(
        LITE0, pretrained=False, features_only=True, out_indices=list(method.lite0_layers)
    )
    extractor.requires_grad_(False)
    shapes = [
        [channels, size[0] // stride, size[1] // stride]
        for channels, stride in zip(extractor.feature_info.channels(), extractor.feature_info.reduction(), strict=True)
    ]
    network.feature_extractor = extractor
    network.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes)
    network.fast_flow_blocks = nn.ModuleList(
        create_fast_flow_block(shape, conv3x3_only=False, hidden_ratio=1.0, flow_steps=8) for shape in shapes
    )


def _features(network: Any) -> Any:
    """timm's extractor in a network of anomalib's."""
    extractor = network.encoder if hasattr(network, "encoder") else network.feature_extractor
    while hasattr(extractor, "feature_extractor"):  # anomalib's own wrappers
        extractor = extractor.feature_extractor
    return extractor
