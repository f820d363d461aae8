"""Published weights: where they are, how they are fetched, how files of tensors are read, whose tensors they are."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from stlm_edge.download import Published, fetch
from stlm_edge.errors import WeightsError
from stlm_edge.files import cache_folder, require_regular, sha256
from stlm_edge.memory import ran_out

PUBLISHED = {
    "mobile_sam": Published(
        url="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        licence="Apache-2.0",
    ),
    "sam_vit_b": Published(
        url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        licence="Apache-2.0",
    ),
    "sam_vit_l": Published(
        url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        licence="Apache-2.0",
    ),
    "sam_vit_h": Published(
        url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        licence="Apache-2.0",
    ),
}

TIMM_FROM_MOBILE_SAM: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^patch_embed\.seq\.0\.", "patch_embed.conv1."),
    (r"^patch_embed\.seq\.2\.", "patch_embed.conv2."),
    # MobileSAM merges at the end of a stage, timm at the beginning of the next one.
    (r"^layers\.(\d)\.downsample\.", lambda match: f"stages.{int(match[1]) + 1}.downsample."),
    (r"^layers\.", "stages."),
    (r"\.c\.", ".conv."),
)


WRAPPERS = ("state_dict", "model")
"""Under what name other trainings keep the tensors in their files."""


def locate(name_or_path: str) -> Path:
    """A file as it is, or a name from `PUBLISHED`, which is fetched into the cache and checked.

    Raises:
        WeightsError: if it is neither.
        DownloadError: if the published file cannot be fetched, or what came is not it.
    """
    if name_or_path in PUBLISHED:
        return fetch(PUBLISHED[name_or_path], folder=cache_folder())
    path = Path(name_or_path)
    if not path.is_file():
        raise WeightsError(f"{path} is no file; give a path or one of the published names {', '.join(PUBLISHED)}")
    return path


def to_fetch(name_or_path: str) -> str | None:
    """The address that `locate` would fetch from, None where the file is here."""
    published = PUBLISHED.get(name_or_path)
    return None if published is None or (cache_folder() / published.file_name).is_file() else published.url


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` file or of a PyTorch file, on the CPU.

    A PyTorch file is read by torch's restricted unpickler, which knows tensors and containers and runs no code. The
    tensors may be below one of `WRAPPERS`.

    Raises:
        WeightsError: if the file is damaged or holds anything but tensors by name. A published file that was altered
            is refused before it is opened.
    """
    for name, published in PUBLISHED.items():
        if path.name == published.file_name and sha256(path) != published.sha256:
            raise WeightsError(f"{path} is not the published {name} (SHA-256 differs); delete it and fetch it again")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else load_torch_file(path)
        content = _unwrapped(content)
    except Exception as error:  # a damaged pickle fails in any way that Python knows
        if ran_out(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path} is not a file of tensors ({reason}); expected a PyTorch state dict or .safetensors"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds more than tensors by name; expected a plain PyTorch state dict")
    return content


def load_torch_file(path: Path, *, device: torch.device | str = "cpu") -> Any:
    """What torch has written, by its restricted unpickler.

    Raises:
        ValueError: in our own words, if it is no such file: torch's advise to run whatever code is in it.
        OSError: if it cannot be read.
    """
    require_regular(path)
    try:
        with warnings.catch_warnings():  # what torch has to say of a file that it refuses is no more than the refusal
            warnings.simplefilter("ignore")
            return torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle fails in any way that Python knows
        if ran_out(error):
            raise
        raise ValueError("it is damaged, or no file that torch has written") from error


def _unwrapped(content: Any) -> Any:
    """The tensors alone, where a training wrote them beside its own state."""
    names = [name for name in WRAPPERS if isinstance(content, dict) and isinstance(content.get(name), dict)]
    return content[names[0]] if names else content


def timm_name(mobile_sam_name: str) -> str:
    """MobileSAM's name of an image encoder's tensor → the name in `ImageEncoder`."""
    if mobile_sam_name.startswith("neck."):
        return mobile_sam_name
    for pattern, replacement in TIMM_FROM_MOBILE_SAM:
        mobile_sam_name = re.sub(pattern, replacement, mobile_sam_name)
    return f"backbone.{mobile_sam_name}"


def mobile_sam_encoder_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image encoder's tensors from MobileSAM's state dict, without classifier, under `ImageEncoder`'s names."""
    return {
        timm_name(name): tensor
        for name, tensor in _below(tensors, "image_encoder.").items()
        if not name.startswith(("norm_head.", "head.")) and not name.endswith(("attention_bias_idxs", ".ab"))
    }


def decoder_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The two-way decoder's tensors from the state dict of SAM or MobileSAM, under the names of `TwoWayDecoder`."""
    named = {f"transformer.{name}": tensor for name, tensor in _below(tensors, "mask_decoder.transformer.").items()}
    for ours, theirs in (
        ("iou_token.weight", "mask_decoder.iou_token.weight"),
        ("mask_tokens.weight", "mask_decoder.mask_tokens.weight"),
        ("no_mask_embed.weight", "prompt_encoder.no_mask_embed.weight"),
        (
            "positional_encoding.positional_encoding_gaussian_matrix",
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        ),
    ):
        if theirs in tensors:
            named[ours] = tensors[theirs]
    return named


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and values, whatever the file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
