"""One training run from a folder of pictures to a finished checkpoint, and the way back into one that was cut short."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stlm_edge.datasets import load_category
from stlm_edge.errors import CheckpointError, DataError, OutputError, counted
from stlm_edge.files import make_folder, remove_left_over, write_text
from stlm_edge.imaging import Image
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.encoder import architecture_named
from stlm_edge.network.inference import InferencePath, choose_device, prepare
from stlm_edge.network.initial import load_initial
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.network.weights import fingerprint, locate, read_tensors
from stlm_edge.spec import ModelSpec
from stlm_edge.thresholds import good_quantile, promise, with_normal_scores
from train.augment import rotation_for, variation_of
from train.config import RANDOM, TrainConfig
from train.data import Batches, load_images, split
from train.distributed import Processes, joined, main_first, share_batch_norms
from train.evaluate import score_images
from train.loop import Ending, train
from train.objective import Objective
from train.pseudo_anomalies.choice import pseudo_anomalies_of
from train.pseudo_anomalies.textures import texture_source
from train.record import Begun, Pictures, Sources, read_record, weights_files, write_record
from train.teaching.guidance import Guidance, make_guidance
from train.teaching.teacher import mask_head_tensors, teacher_of
from train.training import EpochRecord, Training, begin, restore_plain
from train.watch import Board, Patience, held_out_loss

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "model.safetensors"
STATE_NAME = "state.pt"
HELD_OUT_WATCHED = 32
"""Held-out pictures whose loss is watched, at most."""


def fit(config: TrainConfig, *, data: Path, category: str | None, textures: Path | None, output: Path | None) -> Path:
    """Train, choose the threshold and write the run's folder.

    The folder gets `config.yaml` and `run.json` at once, `model.safetensors`, `history.jsonl` and `state.pt` after each
    epoch. `state.pt` is what `resume` goes on from; a finished run has none.

    Returns:
        The checkpoint's path.
    Raises:
        StlmError: in the words of whatever is wrong with data, weights, settings or the output folder.
    """
    loaded = load_category(data, category)
    folder = output or Path("runs") / loaded.name
    checkpoint = folder / CHECKPOINT_NAME
    if checkpoint.exists():
        unfinished = (folder / STATE_NAME).exists()
        advice = f"go on with stlm resume {folder}, or " if unfinished else ""
        raise OutputError(f"{checkpoint} exists; {advice}choose another folder with --output, or delete it")
    sources = Sources(data, category, textures, weights_files(config))
    return _run(config, sources, folder, run_id=uuid.uuid4().hex, state=None)


def resume(
    folder: Path, *, data: Path | None = None, textures: Path | None = None, teacher_weights: Path | None = None
) -> Path:
    """Go on with a run that was killed or interrupted, from the last epoch that it finished.

    On a CPU the rest is bit for bit what it would have been. The initial weights are not asked for any more.

    Args:
        data, textures, teacher_weights: where they are now, if they have moved.
    Returns:
        The checkpoint's path.
    Raises:
        StlmError: if there is no run, or it is finished, or the good pictures are others; otherwise as `fit`.
    """
    begun = read_record(folder)
    if (folder / CHECKPOINT_NAME).exists() and not (folder / STATE_NAME).exists():
        checkpoint = folder / CHECKPOINT_NAME
        if load(checkpoint, threshold_is_needed=False).spec.threshold is None:
            raise CheckpointError(
                f"{folder} is not finished and has no {STATE_NAME} to go on from; bring it back, or train again in "
                "another folder"
            )
        raise CheckpointError(f"{folder} is finished, nothing is left to train; see {checkpoint}")
    state = folder / STATE_NAME
    sources = begun.sources.moved(data=data, textures=textures, teacher_weights=teacher_weights)
    if not state.exists():
        return _run(begun.config, sources, folder, run_id=begun.id, state=None)
    return _run(begun.config, sources, folder, run_id=begun.id, state=state, begun=begun)


def _run(
    config: TrainConfig,
    sources: Sources,
    folder: Path,
    *,
    run_id: str,
    state: Path | None,
    begun: Begun | None = None,
) -> Path:
    with ExitStack() as stack:
        processes, device = stack.enter_context(joined(choose_device(config.device)))
        loaded = load_category(sources.data, sources.category)
        pictures = Pictures.of(loaded.train)
        expected = None if begun is None else begun.pictures
        if expected not in (None, pictures):
            # Otherwise some of those held out would be such that the first part of the training has learnt from.
            raise DataError(
                f"{folder} was begun on {expected.count} good pictures, found {pictures.count} others in "
                f"{sources.data}; give --data with the same ones, or train again in another folder"
            )
        textures = texture_source(sources.textures)
        rotation = rotation_for(config.rotation, loaded.name)
        good = load_images(loaded.train, size=config.image_size, skip_corrupt=config.skip_corrupt)
        images, held_out = split(good, holdout=config.holdout, seed=config.seed)
        batches = stack.enter_context(
            Batches(
                images,
                pseudo_anomalies=pseudo_anomalies_of(config, images=images, textures=textures),
                batch_size=config.batch_size,
                seed=config.seed,
                rotation=rotation,
                variation=variation_of(config),
                workers=config.workers,
                process=processes.index,
                processes=processes.count,
            )
        )
        spec = ModelSpec(
            category=loaded.name,
            architecture=config.architecture,
            input_size=config.image_size,
            map_size=config.image_size,
            weights_sha256="",
            highest_score=config.design.highest_score,
        )
        objective, guidance = build(
            sources.located(config), spec, batches, device=device, processes=processes, state=state
        )
        training = begin(objective, config, steps_per_epoch=len(batches), run_id=run_id)
        taught_by = None if guidance is None else guidance.teacher.origin
        if begun is not None and begun.taught_by is not None:
            taught_by = begun.taught_by  # a state has the tensors of a frozen stream, not where they were from
        make_folder(folder)  # not before all that is asked for has been found to fit
        if processes.is_main:
            for name in (STATE_NAME, CHECKPOINT_NAME, "history.jsonl"):
                remove_left_over(folder / name)
            write_record(
                folder,
                config,
                sources,
                pictures=pictures,
                taught_by=taught_by,
                run_id=run_id,
                device=device,
                processes=processes.count,
            )
        if state is not None:
            training.restore(state)
            logger.info("going on after epoch %d", training.epoch)
        elif processes.is_main:
            training.save(folder / STATE_NAME)
        logger.info(
            "training %s on %s (%d held out) at %d x %d, %d in a step, on %s%s",
            config.architecture,
            counted(len(images), "picture"),
            len(held_out),
            *config.image_size,
            batches.batch_size,
            device,
            f" and {processes.count - 1} more" if processes.count > 1 else "",
        )
        if batches.batch_size == 1 and config.aggregation != "none":
            logger.info(
                "one picture in a step: what is pooled over it is normalised by running statistics, which stay as they "
                "are; with two in a step they are learnt"
            )
        watched, board = None, None
        if config.patience or config.tensorboard:
            shown = held_out[:HELD_OUT_WATCHED]
            drawn = pseudo_anomalies_of(config, images=shown, textures=textures)
            watched = Batches(shown, pseudo_anomalies=drawn, batch_size=config.batch_size, seed=config.seed + 1)
            if config.tensorboard and processes.is_main:
                board = Board(folder / "tensorboard", first=next(iter(watched.epoch(0))))
                stack.callback(board.close)
        keeper = _Keeper(folder, config, spec, training, guidance, watched, board, writes=processes.is_main)
        ending = train(
            training,
            guidance,
            batches,
            config=config,
            after_epoch=keeper,
            processes=processes,
            failures=folder / "failed",
        )
        if processes.is_main:
            keeper.finish(ending, held_out)
    return folder / CHECKPOINT_NAME


@dataclass
class _Keeper:
    """Writes the run's folder after each epoch and at the end, and says when the held-out loss falls no more.

    Attributes:
        watched: whose loss is measured after each epoch.
        writes: only one of several processes does.
    """

    folder: Path
    config: TrainConfig
    spec: ModelSpec
    training: Training
    guidance: Guidance | None
    watched: Batches | None
    board: Board | None
    writes: bool

    def __post_init__(self) -> None:
        self.network = self.training.objective.network
        self._patience = Patience(self.config.patience, self.training.history)

    def __call__(self, record: EpochRecord) -> bool:
        """Keep what the epoch gave; True if the training shall end."""
        better = True
        if self.watched is not None:
            loss = held_out_loss(self.training.objective, self.guidance, self.watched)
            record = dataclasses.replace(record, held_out=loss)
            better = self._patience.improves(loss) or not self.config.patience
        self.training.history.append(record)
        if self.writes:
            lines = [json.dumps(dataclasses.asdict(entry)) for entry in self.training.history]
            write_text(self.folder / "history.jsonl", "\n".join(lines) + "\n")
            if better:
                self._save(self.spec)
            self.training.save(self.folder / STATE_NAME)
            if self.board is not None:
                self.board.show(record, InferencePath(self.network, self.spec))
        return bool(self.config.patience) and self._patience.over

    def finish(self, ending: Ending, held_out: list[Image]) -> None:
        """Choose the threshold and write the finished checkpoint."""
        checkpoint = self.folder / CHECKPOINT_NAME
        if ending is Ending.INTERRUPTED:
            logger.warning(
                "interrupted; the model is kept as it is, and stlm resume %s goes on after epoch %d",
                self.folder,
                self.training.epoch,
            )
        elif self.config.patience and checkpoint.exists():
            logger.info("%s; the best epoch's weights are kept", ending.value)
            self.network.load_state_dict(load(checkpoint).network.state_dict())
        scores = score_images(InferencePath(self.network, self.spec), held_out)
        threshold = good_quantile(scores, false_alarm_rate=self.config.false_alarm_rate)
        self._save(with_normal_scores(dataclasses.replace(self.spec, threshold=threshold), scores))
        if ending is not Ending.INTERRUPTED:
            (self.folder / STATE_NAME).unlink(missing_ok=True)
        logger.info(
            "threshold %.6g from %s; %s",
            threshold.value,
            counted(threshold.images, "held-out good picture"),
            promise(threshold),
        )

    def _save(self, spec: ModelSpec) -> None:
        spec = dataclasses.replace(spec, weights_sha256=fingerprint(self.network.state_dict()))
        save(self.folder / CHECKPOINT_NAME, Checkpoint(self.network, spec, self.config.to_dict()))


def build(
    config: TrainConfig,
    spec: ModelSpec,
    batches: Batches,
    *,
    device: torch.device,
    processes: Processes,
    state: Path | None = None,
) -> tuple[Objective, Guidance | None]:
    """The network with its losses and the teacher's guidance, on the device; the same weights in every process.

    A frozen plain stream that comes with the weights, in a state or in a checkpoint of this toolkit, is the teacher as
    it is: what it learnt of good pictures is what the denoising stream learns from, and no file of its own is needed.

    Args:
        state: what all that learns gets its weights from, so that nobody needs initial ones.
    """
    torch.manual_seed(config.seed)
    network = Stlm(architecture_named(config.architecture), config.design, image_size=config.image_size)
    frozen = network.plain if isinstance(network.plain, Teacher) else None
    comes_along = False
    with main_first(processes):
        if state is not None:
            if frozen is not None:
                restore_plain(frozen, state)
                comes_along = True
        elif config.initial_weights == RANDOM:
            logger.warning(
                "NO INITIAL WEIGHTS: both streams and the decoder start RANDOM; give --initial-weights: "
                "MobileSAM's for stlm, or a checkpoint of the same architecture"
            )
        else:
            report = load_initial(network, locate(config.initial_weights))
            logger.info("initial weights: %s", report)
            comes_along = frozen is not None and report.is_whole
        if frozen is not None and comes_along:
            logger.info("teacher %s as it was for these weights, found there", config.teacher)
            frozen.origin = str(state or config.initial_weights)
            teacher: Teacher | None = copy.deepcopy(frozen)
        else:
            teacher = teacher_of(config, channels=network.architecture.embedding_channels)
    guidance = None
    channels = network.architecture.embedding_channels
    if teacher is not None:
        teacher.to(device)
        channels = teacher.channels
        if not comes_along:
            some = batches.images[: teacher.settling_images]
            teacher.settle(prepare(torch.from_numpy(np.stack(some)).to(device), spec))
            if frozen is not None:
                frozen.load_state_dict(teacher.state_dict())
        guidance = make_guidance(
            teacher,
            spec=spec,
            layers=config.layers,
            precision=config.teacher_precision,
            compile_teacher=config.compile_teacher,
            cache_gb=0 if batches.varies else config.teacher_cache_gb,
        )
    if processes.count > 1:
        share_batch_norms(network)
    objective = Objective(network, config, spec=spec, teacher_channels=channels)
    if objective.mask_heads and config.initial_weights != RANDOM and state is None:
        tensors = mask_head_tensors(read_tensors(locate(config.initial_weights)))
        for head in objective.mask_heads if tensors else ():  # a checkpoint of this toolkit has none
            head.load_state_dict(tensors)
    return objective.to(device).to(memory_format=torch.channels_last), guidance
