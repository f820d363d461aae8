"""`stlm fetch`: public data sets, from their owners and checked, or the way to them by hand."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stlm_edge.archives import descend, require_free, unpack
from stlm_edge.datasets import categories, texture_paths
from stlm_edge.download import Published, fetch, warn_of_unknown_hash
from stlm_edge.errors import ConfigError, DataError, DownloadError
from stlm_edge.files import cannot_write, sha256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublicDataSet:
    """A data set of the paper (4.1.1), and how one comes by it.

    Attributes:
        page: the owners' page.
        licence: as the owners state it.
        url: of the owners' file; None where it is to be fetched by hand.
        by_hand: what to fetch, where there is no `url`.
        sha256: of the owners' one file, where it is known.
        textures: holds textures instead of categories.
    """

    title: str
    page: str
    licence: str
    url: str | None = None
    by_hand: str = ""
    sha256: str | None = None
    textures: bool = False


DATA_SETS = {
    "dtd": PublicDataSet(
        "Describable Textures Dataset, the source of pseudo anomalies",
        page="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        # As TensorFlow Datasets (625239812 bytes) and anomalib record it.
        sha256="e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        licence="none stated; made available for research purposes",
        textures=True,
    ),
    "visa": PublicDataSet(
        "Visual Anomaly Dataset",
        page="https://github.com/amazon-science/spot-diff",
        url="https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
        # As anomalib and several who downloaded it record it (1929840640 bytes); the owners publish none.
        sha256="2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        licence="CC BY 4.0",
    ),
    "mvtec": PublicDataSet(
        "MVTec Anomaly Detection Dataset",
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad/downloads",
        licence="CC BY-NC-SA 4.0: no commercial use",
        # The owners' links to the file change with time, and their page states the terms first.
        by_hand="mvtec_anomaly_detection.tar.xz",
        # As anomalib and several who downloaded it record it (5264982680 bytes); the owners publish none.
        sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
    ),
    "dagm": PublicDataSet(
        "DAGM 2007, Weakly Supervised Learning for Industrial Optical Inspection",
        page="https://zenodo.org/records/12750201",
        licence="see the page",
        by_hand="the archives of the classes",
    ),
}


def overview() -> str:
    """All data sets as text: name, licence, address, and whether they can be fetched."""
    lines = []
    for name, data_set in DATA_SETS.items():
        way = data_set.url or f"by hand: {data_set.by_hand} from {data_set.page}"
        lines += [
            f"{name:<7}{data_set.title}",
            f"       licence: {data_set.licence} ({data_set.page})",
            f"       {way}",
            f"       SHA-256: {data_set.sha256 or 'NOT KNOWN; give one to check against with --sha256'}",
        ]
    return "\n".join(lines)


def fetch_data_set(name: str, *, output: Path | None, archives: Sequence[Path], expected_sha256: str | None) -> Path:
    """Fetch a data set, or take archives that were fetched by hand, check and unpack it.

    Args:
        output: the folder that it becomes, by default `data/<name>`.
        archives: of the data set, on this machine; none to download it.
        expected_sha256: to check the one archive against, instead of the recorded hash.
    Returns:
        The data set's folder; for textures, the folder of pictures in it.
    Raises:
        ConfigError: for an unknown name, or a hash that cannot be one.
        DownloadError: if it cannot be fetched, or an archive is not the expected one.
        DataError: if an archive is damaged or holds something else.
        OutputError: if the folder exists or cannot be written.
    """
    if name not in DATA_SETS:
        raise ConfigError(f"no public data set {name!r}; expected one of {', '.join(DATA_SETS)}")
    data_set = DATA_SETS[name]
    target = output or Path("data") / name
    expected = _checked_hash(expected_sha256, archives)
    require_free(target)
    if archives:
        logger.info("%s, licence: %s (%s)", data_set.title, data_set.licence, data_set.page)
        _check(archives, expected or (data_set.sha256 if len(archives) == 1 else None), data_set)
        _unpack(archives, target, data_set)
    elif data_set.url is None:
        raise DownloadError(
            f"{data_set.title} must be fetched by hand (licence: {data_set.licence}): get {data_set.by_hand} from "
            f"{data_set.page}, then run stlm fetch {name} -o {target} with --archive FILE for each, or "
            f"unpack into {target} yourself"
        )
    else:
        logger.info("%s, see %s", data_set.title, data_set.page)
        published = Published(data_set.url, expected or data_set.sha256, data_set.licence)
        own = (target.parent / published.file_name).is_file()
        archive = fetch(published, folder=target.parent)
        _unpack([archive], target, data_set)
        if not own:  # what lay there before may be someone's own copy
            _delete(archive)
    return target / "images" if data_set.textures else target


def _checked_hash(given: str | None, archives: Sequence[Path]) -> str | None:
    if given is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", given):
        raise ConfigError(f"--sha256 is {given!r}, expected 64 hexadecimal digits")
    if len(archives) > 1:
        raise ConfigError(f"--sha256 was given for {len(archives)} archives, expected one; check them one by one")
    return given.lower()


def _check(archives: Sequence[Path], expected: str | None, data_set: PublicDataSet) -> None:
    for archive in archives:
        try:
            found = sha256(archive)
        except OSError as error:
            raise DataError(f"{archive} cannot be read ({error.strerror or error}); check the path") from None
        if expected is None:
            warn_of_unknown_hash(archive, found)
        elif found != expected:
            raise DownloadError(
                f"{archive} has SHA-256 {found}, expected {expected}; fetch it again from {data_set.page}, or, if you "
                f"trust it, give --sha256 {found}"
            )


def _unpack(archives: Sequence[Path], target: Path, data_set: PublicDataSet) -> None:
    def find_content(folder: Path) -> Path:
        if data_set.textures:
            content = descend(folder, until=lambda inner: (inner / "images").is_dir())
            texture_paths(content / "images")
        else:
            content = descend(folder, until=_has_categories)
            categories(content)
        return content

    unpack(archives, target, find_content=find_content)


def _delete(archive: Path) -> None:
    try:
        archive.unlink()
    except OSError as error:
        raise cannot_write(archive, error) from error
    logger.info("unpacked, and deleted %s", archive)


def _has_categories(folder: Path) -> bool:
    try:
        return bool(categories(folder))
    except DataError:
        return False
