"""timm's published weights: in its own cache, or fetched into that, without minutes of trying where nothing answers."""

from __future__ import annotations

import logging
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from stlm_edge.errors import DownloadError, WeightsError, cut
from stlm_edge.memory import ran_out

logger = logging.getLogger(__name__)

FILES = ("model.safetensors", "pytorch_model.bin")
"""Of a model on a hub, in the order in which timm takes them."""
TIMEOUT_S = 10.0
"""For a first answer. The hub's own library tries each file six times, which takes from 23 s to minutes."""


def published_file(name: str) -> tuple[Path, str]:
    """The file of weights that timm's record names for a network, fetched into its cache where it is not there.

    Returns:
        The file, and its licence by timm's record; empty where that has none.
    Raises:
        WeightsError: if timm has no record of weights.
        DownloadError: if they are neither in the cache nor to be fetched.
    """
    published = timm.get_pretrained_cfg(name)
    if published is None or not (published.hf_hub_id or published.url):
        raise WeightsError(
            f"timm has no published weights of {name}; name another one (timm.list_pretrained()), or give "
            "--teacher-weights FILE or random"
        )
    licence = str(published.license or "")
    if not published.hf_hub_id:
        return _from_address(name, str(published.url)), licence
    repository, _, revision = str(published.hf_hub_id).partition("@")
    names = (str(published.hf_hub_filename),) if published.hf_hub_filename else FILES
    for file in names:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None, local_files_only=True)), licence
        except LocalEntryNotFoundError:
            continue
    address, cache = hf_hub_url(repository, names[0], revision=revision or None), Path(constants.HF_HUB_CACHE)
    try:
        _require_answer(address, offline=constants.HF_HUB_OFFLINE)
        logger.info("fetching %s into %s", address, cache)
        for file in names:
            try:
                return Path(hf_hub_download(repository, file, revision=revision or None)), licence
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
        raise FileNotFoundError(f"it has none of {', '.join(names)}")
    except Exception as error:  # whatever a hub or a socket raises
        raise _not_fetched(name, address, cache, error) from None


def _from_address(name: str, address: str) -> Path:
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    path = cache / Path(urlparse(address).path).name
    if path.is_file():
        return path
    try:
        _require_answer(address, offline=constants.HF_HUB_OFFLINE)
        logger.info("fetching %s into %s", address, cache)
        cache.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(path), progress=False)
    except Exception as error:  # whatever a socket raises
        raise _not_fetched(name, address, cache, error) from None
    return path


def _require_answer(address: str, *, offline: bool) -> None:
    """Raises `OSError` if nobody answers there soon; what is answered is for whoever fetches."""
    if offline:
        raise OSError("HF_HUB_OFFLINE is set")
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # the hub's library has certificates of its own
            raise


def _not_fetched(name: str, address: str, cache: Path, error: Exception) -> Exception:
    if ran_out(error):
        return error
    reason = cut(" ".join(str(error).split()) or type(error).__name__, 160)
    return DownloadError(
        f"the weights of timm:{name} are not in {cache} and cannot be fetched ({reason}); bring {address} here from a "
        "machine that reaches it and give --teacher-weights FILE"
    )
