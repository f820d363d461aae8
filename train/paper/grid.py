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
from train import runs
from train.config import TrainConfig, from_dict, from_record, load_preset
from train.fit import CHECKPOINT_NAME
from train.paper.results import RECORD_NAME, read_json
from train.report import EVALUATION_NAME, evaluate_checkpoint

logger = logging.getLogger(__name__)

State = Literal["finished", "to evaluate", "to resume", "to train"]


@dataclass(frozen=True)
class Run:
    """One cell of the grid.

    Attributes:
        preset: its name; a YAML file's name without suffix.
        folder: `OUTPUT/PRESET/CATEGORY/seed-SEED`.
    """

    preset: str
    category: str
    seed: int
    config: TrainConfig
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.preset}, {self.category}, seed {self.seed}"


def plan(
    *,
    presets: Sequence[str],
    categories: Sequence[str],
    seeds: Sequence[int],
    settings: dict[str, Any],
    output: Path,
) -> list[Run]:
    """All runs, the first seed of everything before the second.

    Args:
        presets: names or YAML files.
        settings: override every preset.
    Raises:
        ConfigError: for a preset or setting that cannot work, or two presets of one name.
    """
    named = {Path(preset).stem if preset.endswith((".yaml", ".yml")) else preset: preset for preset in presets}
    if len(named) < len(set(presets)):
        raise ConfigError(f"two of the presets {', '.join(presets)} have the same name; rename one of the files")
    values = {name: load_preset(preset) | settings for name, preset in named.items()}
    return [
        Run(name, category, seed, from_dict(values[name] | {"seed": seed}), output / name / category / f"seed-{seed}")
        for seed in dict.fromkeys(seeds)
        for name in named
        for category in dict.fromkeys(categories)
    ]


def state(run: Run) -> State:
    """How far a run has come, from what is in its folder."""
    found = runs.progress(run.folder)
    if found != "trained":
        return found
    return "finished" if (run.folder / EVALUATION_NAME).exists() else "to evaluate"


def check_same(run: Run, *, data: Path) -> None:
    """Raises `ConfigError` if the folder holds a run with other settings or of another data set."""
    path = run.folder / RECORD_NAME
    if not path.exists():
        return
    record = read_json(path)
    if not {"settings", "data"} <= set(record):
        raise DataError(f"{path} does not say what was run; delete {run.folder}, and the run is done again")
    different = runs.changes(from_record(record["settings"]), run.config)
    if different:
        raise ConfigError(f"{run.folder} was run with {different}; choose another folder with --output, or delete it")
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
        runs.bring_to_end(run.config, run.folder, data=data, category=run.category, textures=textures)
    checkpoint = run.folder / CHECKPOINT_NAME
    evaluate_checkpoint(checkpoint, data=data, category=run.category, device=run.config.device, folder=run.folder)
