"""Training again with pictures that were added since, beside what was there before; nothing of that is replaced."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stlm_edge.datasets import GOOD, load_category
from stlm_edge.errors import CheckpointError, ConfigError, DataError, OutputError
from stlm_edge.files import make_folder, write_text
from stlm_edge.names import escaped, unescaped
from stlm_edge.network.checkpoint import Checkpoint, load
from stlm_edge.spec import ModelSpec
from train.config import TrainConfig
from train.distributed import this_process
from train.fit import CHECKPOINT_NAME, STATE_NAME
from train.joined import Joined, join
from train.record import CONFIG_NAME, Pictures, read_record
from train.runs import bring_to_end, changes
from train.side_by_side import SideBySide, compare, write_sheet
from train.threshold import choose_on_checkpoint

logger = logging.getLogger(__name__)

REPORT_NAME = "retrain"
"""Of `.json`, `.md` and `.png`; the first is written last, when all is done."""
DATA = "data"


@dataclass(frozen=True)
class Retrained:
    """A run and the one that it goes on from.

    Attributes:
        folder: of the new run.
        old, new: checkpoints.
        data: the folder above the category with the pictures of both.
        report: what is to be written of both, for JSON; `lines` for people.
    """

    folder: Path
    old: Path
    new: Path
    data: Path
    category: str
    report: dict[str, Any]
    lines: tuple[str, ...]

    def write(self, *, engine: dict[str, Any] | None, lines: tuple[str, ...]) -> None:
        """Write the report, after which this retraining is done. Raises `OutputError`."""
        self.write_text(lines)
        write_text(self.folder / f"{REPORT_NAME}.json", json.dumps(self.report | {"engine": engine}, indent=2) + "\n")

    def write_text(self, lines: tuple[str, ...]) -> None:
        """Write what people read of it. Raises `OutputError`."""
        text = "\n".join([f"# Retrained: {escaped(str(self.folder))}", "", *self.lines, "", *lines])
        write_text(self.folder / f"{REPORT_NAME}.md", text.rstrip() + "\n")


def retrain(
    run: Path,
    *,
    add: Path,
    output: Path | None = None,
    data: Path | None = None,
    textures: Path | None = None,
    groups: Path | None = None,
    group_by: str = "",
    epochs: int | None = None,
    by_f1: bool = False,
    like: ModelSpec | None = None,
) -> Retrained:
    """Train with the run's pictures and those added, and measure both networks on the test pictures of both.

    The same call goes on after Ctrl-C or a kill. Networks whose streams learn go on from the run's weights; what was
    learnt from by then is not held out. Heads on a frozen stream are trained anew, since each has learnt from pictures
    that another division would leave out of it, and a memory is made anew.

    Args:
        add: a data set's category, or a folder of good pictures.
        output: the new run's folder; None for the next free number behind the run's name.
        data, textures: where the run's pictures are, if they have moved.
        groups, group_by: which good pictures show the same part, in the place of the run's settings.
        epochs: in the place of the run's.
        by_f1: choose the threshold by the added test pictures, and not by good ones alone.
        like: of the engine that the new one is to be made like; a word tells if it is another network's.
    Raises:
        StlmError: in the words of whatever is wrong with run, pictures, weights or folder.
        KeyboardInterrupt: after Ctrl-C, when what was learnt is kept.
    """
    if this_process().count > 1:
        raise ConfigError("found several processes, expected one; start 'stlm retrain' by itself")
    begun, checkpoint = read_record(run), run / CHECKPOINT_NAME
    if (run / STATE_NAME).exists():
        raise CheckpointError(f"{run} is not finished, expected a whole run; go on with it: stlm resume {run}")
    before = load(checkpoint)
    sources = begun.sources.moved(data=data, textures=textures, teacher_weights=None)
    if not sources.data.is_dir():
        raise DataError(f"{sources.data}, which {run} was trained on, is not there; give --data where it is now")
    old = load_category(sources.data, sources.category)
    if begun.pictures not in (None, Pictures.of(old.train)):
        raise DataError(
            f"{run} was trained on other good pictures than the {len(old.train)} in {sources.data}, expected the same; "
            "give --data where they are now"
        )
    added = load_category(add, None)
    if by_f1 and len({sample.label == GOOD for sample in added.test}) < 2:
        raise DataError(
            f"{add} has no good or no defective test pictures, expected both for an F1-optimal threshold; add them "
            f"({add / 'test' / GOOD}, {add / 'test' / 'KIND'}), or leave --threshold-by f1 out"
        )
    if like is not None and like.weights_sha256 != before.spec.weights_sha256:
        logger.warning("OTHER WEIGHTS: --engine is not made of %s; the new one is made as it was all the same", run)
    joined = join(old, added, skip_corrupt=begun.config.skip_corrupt)
    if not (joined.count("train", added=True) or joined.count("test", added=True)):
        raise DataError(f"{add} has no picture that {run} does not have already, expected new ones; give another --add")
    config = _settings(begun.config, checkpoint, groups=groups, group_by=group_by, epochs=epochs)
    folder = output or _next_folder(run)
    _check_folder(folder, config)
    place = folder / DATA / unescaped(old.name)
    make_folder(folder)
    joined.write(place)
    logger.info("pictures: %s", "; ".join(_told(joined)))
    try:
        bring_to_end(config, folder, data=place.parent, category=place.name, textures=sources.textures)
    except KeyboardInterrupt:
        logger.warning("the same 'stlm retrain' goes on and measures both; 'stlm resume' would end the training alone")
        raise
    new = folder / CHECKPOINT_NAME
    if by_f1:
        choose_on_checkpoint(new, data=add, category=None, method="f1", device=config.device)
    found = _compared(before, load(new), joined, place, config, folder)
    report = {
        "format": 1,
        "run": escaped(str(run.resolve())),
        "added": escaped(str(add.resolve())),
        "goes_on": config.initial_weights == str(checkpoint.absolute()),
        "pictures": {
            split: {"before": joined.count(split, added=False), "added": joined.count(split, added=True)}
            for split in ("train", "test")
        }
        | {"repeated": joined.repeated},
        **({} if found is None else found.to_dict()),
    }
    told = "no test pictures, so nothing tells which is better" if found is None else found.markdown()
    lines = (*_told(joined), "", *told.split("\n"))
    return Retrained(folder, checkpoint, new, place.parent, place.name, report, lines)


def _compared(
    old: Checkpoint, new: Checkpoint, joined: Joined, place: Path, config: TrainConfig, folder: Path
) -> SideBySide | None:
    added = joined.test(place, added=True)
    test = load_category(place, None).test
    if not test:
        return None
    sets = {
        "test before": [sample for sample in test if sample.path not in added],
        "test added": [sample for sample in test if sample.path in added],
    }
    found, inspectors = compare(old, new, sets, device=config.device)
    write_sheet(folder / f"{REPORT_NAME}.png", found, inspectors)
    return found


def _settings(
    config: TrainConfig, checkpoint: Path, *, groups: Path | None, group_by: str, epochs: int | None
) -> TrainConfig:
    """Those of the run, going on from its weights where that leaves pictures for the threshold."""
    goes_on = config.epochs > 0 and not config.design.sees_plain and not config.folds
    changed: dict[str, Any] = {"evaluate_every": 0}
    if goes_on:
        changed |= {"initial_weights": str(checkpoint.absolute()), "random_encoders": False}
    if groups is not None or group_by:
        changed |= {"groups": str(groups or ""), "group_by": group_by}
    if epochs is not None:
        changed["epochs"] = epochs
    return dataclasses.replace(config, **changed)


def _next_folder(run: Path) -> Path:
    """`bottle` → `bottle-2` → `bottle-3`: the first that is neither done nor a run that was no retraining."""
    name = run.resolve().name
    numbered = re.fullmatch(r"(.+)-([0-9]{1,6})", name)
    stem, number = (numbered[1], int(numbered[2])) if numbered else (name, 1)
    while True:
        number += 1
        folder = run.resolve().with_name(f"{stem}-{number}")
        is_other = (folder / CONFIG_NAME).exists() and not (folder / DATA).is_dir()
        if not is_other and not (folder / f"{REPORT_NAME}.json").exists():
            return folder


def _check_folder(folder: Path, config: TrainConfig) -> None:
    """Raises `OutputError` or `ConfigError` if it holds anything but this retraining, begun."""
    if (folder / f"{REPORT_NAME}.json").exists():
        raise OutputError(f"{folder} holds a retraining that is done; choose another folder with --output")
    if not (folder / CONFIG_NAME).exists():
        return
    if not (folder / DATA).is_dir():
        raise OutputError(f"{folder} holds another run; choose another folder with --output")
    different = changes(read_record(folder).config, config)
    if different:
        raise ConfigError(f"{folder} was begun with {different}; choose another folder with --output, or delete it")


def _told(joined: Joined) -> list[str]:
    lines = [
        f"{split}: {joined.count(split, added=False)} pictures before, {joined.count(split, added=True)} added"
        for split in ("train", "test")
    ]
    return [*lines, f"{joined.repeated} added ones were there already"] if joined.repeated else lines
