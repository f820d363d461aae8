"""The methods that people would use instead, and what each of them starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backbone = Literal["published", "efficientnet-lite0", "random"]

BACKBONES: tuple[Backbone, ...] = ("published", "efficientnet-lite0", "random")

LITE0 = "tf_efficientnet_lite0"
"""timm's name of EfficientNet-Lite0 with TensorFlow's padding."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        title: as its authors call it.
        network: the class in `anomalib.models`.
        backbone: anomalib's default, by timm's name; None if it has none.
        lite0_layers: which of EfficientNet-Lite0's five feature maps stand for those that it takes of its own backbone,
            at the same strides; empty if it cannot take another backbone.
        batch: pictures in a training step: anomalib's 32, or fewer where its authors train with fewer.
        epochs: of its authors' training, which a limit of minutes cuts short; 1 if there is nothing to optimise.
        steps: of its authors' training, where they count so.
        needs_textures: takes pictures of other things to train.
    """

    name: str
    title: str
    network: str
    backbone: str | None
    lite0_layers: tuple[int, ...] = ()
    batch: int = 32
    epochs: int = 1
    steps: int = -1
    needs_textures: bool = False

    def pretrained(self, backbone: Backbone) -> str | None:
        """In words, on what the network that it starts from was trained; None for on nothing."""
        if self.name == "efficientad":
            return "its authors' teacher" if backbone == "published" else None
        if self.backbone is None or backbone == "random":
            return None
        if backbone == "published":
            return "ImageNet, timm's published weights"
        return "ImageNet, TensorFlow's weights of EfficientNet-Lite0" if self.lite0_layers else None

    def backbone_name(self, backbone: Backbone) -> str | None:
        """By timm's name; None if it has none."""
        return LITE0 if backbone == "efficientnet-lite0" and self.lite0_layers else self.backbone

    def remark(self, backbone: Backbone) -> str:
        """What a reader of its figures must know; empty if there is nothing."""
        if self.name == "efficientad":
            textures = "textures in place of ImageNette"
            return textures if backbone == "published" else f"random teacher, {textures}: its accuracy means little"
        if self.backbone is not None and self.pretrained(backbone) is None:
            return "random backbone: its accuracy means little"
        return ""


METHODS = {
    method.name: method
    for method in (
        Method("patchcore", "PatchCore", "Patchcore", "wide_resnet50_2", (2, 3)),
        Method("padim", "PaDiM", "Padim", "resnet18", (1, 2, 3)),
        Method(
            "efficientad", "EfficientAD-S", "EfficientAd", None, batch=1, epochs=-1, steps=70_000, needs_textures=True
        ),
        Method("draem", "DRAEM", "Draem", None, batch=8, epochs=700, needs_textures=True),
        Method("fastflow", "FastFlow", "Fastflow", "resnet18", (1, 2, 3), epochs=500),
        Method("cflow", "CFLOW", "Cflow", "wide_resnet50_2", (2, 3, 4), epochs=200),
        Method("rd4ad", "RD4AD", "ReverseDistillation", "wide_resnet50_2", batch=16, epochs=200),
        Method("supersimplenet", "SuperSimpleNet", "Supersimplenet", "wide_resnet50_2.tv_in1k", (2, 3), epochs=300),
    )
}
