"""Many runs: categories x presets x seeds, in one folder that knows which of them are done."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stlm_edge.errors import ConfigError, DataError, StlmError
from stlm_edge.files import make_folder, write_text
from stlm_edge.seal import sealed
from stlm_edge.spec import Size
from train import runs as trainings
from train.config import TrainConfig, from_dict, from_record, load_preset
from train.fit import CHECKPOINT_NAME
from train.old_settings import BEFORE
from train.paper.ablation import check_ablations
from train.paper.results import RECORD_NAME, read_json
from train.report import evaluate_checkpoint
from train.run_told import EVALUATION_NAME

logger = logging.getLogger(__name__)

State = Literal["finished", "to evaluate", "to resume", "to train"]


@dataclass(frozen=True)
class Run:
    """One cell of the grid.

    Attributes:
        preset: its name; a YAML file's name without suffix.
        folder: `OUTPUT/PRESET/CATEGORY/seed-SEED`.
        metric_size: (height, width) for figures over pixels, see `train.evaluate.evaluate`; None: each picture's own.
    """

    preset: str
    category: str
    seed: int
    config: TrainConfig
    folder: Path
    metric_size: Size | None = None

    @property
    def name(self) -> str:
        return f"{self.preset}, {self.category}, seed {self.seed}"


@dataclass(frozen=True)
class Failure:
    """A run that came to nothing, and why."""

    run: Run
    reason: str


def plan(
    *,
    presets: Sequence[str],
    categories: Sequence[str],
    seeds: Sequence[int],
    settings: dict[str, Any],
    output: Path,
    metric_size: Size | None = None,
) -> list[Run]:
    """All runs, the first seed of everything before the second.

    Args:
        presets: names or YAML files.
        settings: override every preset.
    Raises:
        ConfigError: for a preset or setting that cannot work, or takes back what a preset is about, or two presets of
            one name.
    """
    named = {Path(preset).stem if preset.endswith((".yaml", ".yml")) else preset: preset for preset in presets}
    if len(named) < len(set(presets)):
        raise ConfigError(f"two of the presets {', '.join(presets)} have the same name; rename one of the files")
    check_ablations(named, settings)
    values = {name: load_preset(preset) | settings for name, preset in named.items()}
    runs = [
        Run(
            name,
            category,
            seed,
            from_dict(values[name] | {"seed": seed}),
            output / name / category / f"seed-{seed}",
            metric_size,
        )
        for seed in dict.fromkeys(seeds)
        for name in named
        for category in dict.fromkeys(categories)
    ]
    if any(run.config.evaluate_every and run.config.looks_at_size != run.metric_size for run in runs):
        logger.warning(
            "best on test will be left out of evaluations, which measure pixels at another size than evaluate_every "
            "does; give --metric-size and --evaluate-size alike"
        )
    return runs


def state(run: Run) -> State:
    """How far a run has come, from what is in its folder; measured at another size, it is to be evaluated again.

    Raises `DataError` if its evaluation is damaged.
    """
    found = trainings.progress(run.folder)
    if found != "trained":
        return found
    evaluation = run.folder / EVALUATION_NAME
    if not evaluation.exists():
        return "to evaluate"
    size = read_json(evaluation).get("metric_size")
    wanted = None if run.metric_size is None else list(run.metric_size)
    return "finished" if size == wanted else "to evaluate"


def check_same(run: Run, *, data: Path) -> None:
    """Raises `ConfigError` if the folder holds a run with other settings or of another data set."""
    path = run.folder / RECORD_NAME
    if not path.exists():
        return
    record = read_json(path)
    if not {"settings", "data"} <= set(record):
        raise DataError(f"{path} does not say what was run; delete {run.folder}, and the run is done again")
    before = from_record(record["settings"])
    different = trainings.changes(before, run.config)
    if different:
        flags = trainings.as_before(before, run.config) if not BEFORE.keys() <= set(record["settings"]) else ""
        older = f"; it was begun by an older version, whose start these flags give: {flags}" if flags else ""
        raise ConfigError(
            f"{run.folder} was run with {different}{older}; {'else ' if older else ''}choose another folder with "
            "--output, or delete it"
        )
    if record["data"] != data.resolve().name:
        raise ConfigError(
            f"{run.folder} was run on {record['data']}, now {data.resolve().name}; choose another folder with --output"
        )


def attempt(run: Run, *, data: Path, textures: Path | None) -> str:
    """Bring one to its end, and let what is wrong with it be no matter of the others'.

    Returns:
        Why it came to nothing, in one line; empty where it is finished.
    Raises:
        KeyboardInterrupt: after Ctrl-C; the same call goes on later.
    """
    try:
        bring_to_end(run, data=data, textures=textures)
    except StlmError as error:
        return " ".join(str(error).split())
    except (RuntimeError, OSError, MemoryError, ValueError) as error:  # out of memory among them: the next may fit
        logger.exception("failed: %s", run.name)
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def bring_to_end(run: Run, *, data: Path, textures: Path | None) -> None:
    """Train and evaluate what of it is not done yet. Raises as `train.fit.fit` does."""
    before = state(run)
    if before == "to train":
        make_folder(run.folder)
        (run.folder / EVALUATION_NAME).unlink(missing_ok=True)
        record = {
            "preset": run.preset,
            "category": run.category,
            "seed": run.seed,
            "data": data.resolve().name,
            "settings": run.config.to_dict(),
        }
        write_text(run.folder / RECORD_NAME, json.dumps(sealed(record), indent=2) + "\n")
    if before != "to evaluate":
        trainings.bring_to_end(run.config, run.folder, data=data, category=run.category, textures=textures)
    evaluate_checkpoint(
        run.folder / CHECKPOINT_NAME,
        data=data,
        category=run.category,
        device=run.config.device,
        folder=run.folder,
        metric_size=run.metric_size,
    )
