"""One training run from a folder of pictures to a finished checkpoint, and the way back into one that was cut short."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed import ProcessGroup

from stlm_edge.datasets import load_category
from stlm_edge.errors import CheckpointError, OutputError
from stlm_edge.files import locked, make_folder, remove_left_over, write_text
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.inference import InferencePath, choose_device
from stlm_edge.network.patch_memory import without_memory
from stlm_edge.network.weights import fingerprint
from stlm_edge.spec import ModelSpec
from stlm_edge.thresholds import expectations, with_normal_scores
from train.card import renew_card
from train.config import TrainConfig
from train.data import Batches
from train.distributed import Processes, agreed, by_main, joined, waiting_room
from train.folds import cross_fitted, divide, scores_of_fold
from train.good_pictures import GoodPictures, read_good_pictures
from train.left_out import good_scores
from train.loop import Ending, train
from train.on_test import HISTORY_NAME, OnTest
from train.patch_memory import remember_good
from train.record import Begun, Sources, read_record, weights_files, write_record
from train.start import build, taught_by, tell_what_is_done, warn_of_what_is_known
from train.threshold import chosen_threshold, pseudo_found
from train.training import EpochRecord, Training, begin
from train.watch import Board, Patience, held_out_error

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "model.safetensors"
STATE_NAME = "state.pt"


def fit(config: TrainConfig, *, data: Path, category: str | None, textures: Path | None, output: Path | None) -> Path:
    """Train, choose the threshold and write the run's folder.

    The folder gets `config.yaml` and `run.json` at once, `model.safetensors`, `history.jsonl` and `state.pt` after each
    epoch, and `test-history.jsonl` where test pictures are looked at. `state.pt` is what `resume` goes on from; a
    finished run has none.

    Returns:
        The checkpoint's path.
    Raises:
        StlmError: in the words of whatever is wrong with data, weights, settings or the output folder.
    """
    with joined(choose_device(config.device)) as (processes, device):
        folder = agreed(
            processes,
            lambda: new_folder(output, data=data, category=category),
            told=lambda folder: f"the folder {folder}",
        )
        sources = Sources(data, category, textures, weights_files(config))
        return _run(config, sources, folder, processes, device, run_id=uuid.uuid4().hex, state=None)


def new_folder(output: Path | None, *, data: Path, category: str | None) -> Path:
    """Where a new run goes. Raises `OutputError` if it holds a model already, and as `load_category`."""
    loaded = load_category(data, category)
    folder = output or Path("runs") / loaded.name
    checkpoint = folder / CHECKPOINT_NAME
    if checkpoint.exists():
        unfinished = (folder / STATE_NAME).exists()
        advice = f"go on with stlm resume {folder}, or " if unfinished else ""
        raise OutputError(f"{checkpoint} exists; {advice}choose another folder with --output, or delete it")
    return folder


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
    with joined(choose_device(begun.config.device)) as (processes, device):
        if not state.exists():
            return _run(begun.config, sources, folder, processes, device, run_id=begun.id, state=None)
        return _run(begun.config, sources, folder, processes, device, run_id=begun.id, state=state, begun=begun)


def _run(
    config: TrainConfig,
    sources: Sources,
    folder: Path,
    processes: Processes,
    device: torch.device,
    *,
    run_id: str,
    state: Path | None,
    begun: Begun | None = None,
) -> Path:
    """Args: begun: the run that `state` is of; None where it starts."""
    with ExitStack() as stack:
        room = waiting_room(processes)
        on_test = _on_test(sources, folder, config, processes, room, begun=state is not None)
        data = agreed(
            processes,
            lambda: read_good_pictures(config, sources, folder, begun),
            told=lambda data: f"{len(data.good)} good pictures ({data.digest[:8]})",
        )
        learnt, held = data.division.learnt, data.division.held
        batches = stack.enter_context(data.batches(learnt, config, processes))
        spec = ModelSpec(
            category=data.category,
            architecture=config.architecture,
            input_size=config.image_size,
            map_size=config.image_size,
            weights_sha256="",
            highest_score=config.design.highest_score,
            seen=data.seen,
        )
        objective, guidance = build(
            sources.located(config), spec, batches, device=device, processes=processes, state=state
        )
        if state is None and processes.is_main:
            warn_of_what_is_known(config, data, objective.network)
        training = begin(objective, config, steps_per_epoch=len(batches), run_id=run_id)
        make_folder(folder)  # not before all that is asked for has been found to fit
        if processes.is_main:
            stack.enter_context(locked(folder))
            for name in (STATE_NAME, CHECKPOINT_NAME, "history.jsonl", HISTORY_NAME):
                remove_left_over(folder / name)
            if state is None:
                (folder / HISTORY_NAME).unlink(missing_ok=True)  # of a training whose other files were deleted
            write_record(
                folder,
                config,
                sources,
                pictures=data.told,
                parts=data.parts,
                taught_by=taught_by(objective.network, guidance, begun),
                run_id=run_id,
                device=device,
                processes=processes.count,
            )
        if state is not None:
            training.restore(state)
            agreed(processes, lambda: training.epoch, told=lambda epoch: f"a {STATE_NAME} of epoch {epoch}")
            logger.info("going on after epoch %d", training.epoch)
        elif processes.is_main:
            training.save(folder / STATE_NAME)
        tell_what_is_done(config, data, batches, device=device, processes=processes.count)
        watched, board = None, None
        if config.patience or config.tensorboard:
            watched = data.watched(config)
            if config.tensorboard and processes.is_main:
                board = Board(folder / "tensorboard", first=next(iter(watched.epoch(0))))
                stack.callback(board.close)
        keeper = _Keeper(folder, config, spec, training, watched, board, data, on_test, processes, room)
        keeper.look_at_test()  # after an epoch whose measuring was cut short
        # Where its folds were begun, a training has come to its end, by patience perhaps before the last epoch.
        is_trained = begun is not None and scores_of_fold(0, held, folder=folder, run_id=run_id) is not None
        ending = Ending.PLATEAU if keeper.is_over else Ending.FINISHED
        if not is_trained and not keeper.is_over:
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
            keeper.take_best(ending)
            keeper.remember()
        scores, is_whole = keeper.scores() if processes.is_main else {}, True
        folded = config.folds and ending is not Ending.INTERRUPTED
        if folded and by_main(processes, lambda: len(scores) < len(data.good), room=room):
            scores, is_whole = _fold_scores(keeper, sources, processes, run_id=run_id)
        if processes.is_main:
            keeper.finish(scores, is_whole=is_whole and ending is not Ending.INTERRUPTED)
    return folder / CHECKPOINT_NAME


def _on_test(
    sources: Sources,
    folder: Path,
    config: TrainConfig,
    processes: Processes,
    room: ProcessGroup | None,
    *,
    begun: bool,
) -> OnTest | None:
    if not config.evaluate_every:
        return None
    return agreed(
        processes,
        lambda: OnTest(sources, folder, config, begun=begun, processes=processes, room=room),
        told=lambda on_test: f"test pictures ({on_test.sha256[:8]})",
    )


def _fold_scores(
    keeper: _Keeper, sources: Sources, processes: Processes, *, run_id: str
) -> tuple[dict[int, float], bool]:
    """Scores of all good pictures by networks that are trained for it, and whether none was interrupted."""
    config, data, device = keeper.config, keeper.data, keeper.training.device
    folds = divide(data.parts.numbers, data.division.learnt, folds=config.folds, seed=config.seed)
    logger.info("folds: the training is done %d times more, each as long as it was", len(folds))

    def score_without(left_out: Sequence[int]) -> list[float] | None:
        if left_out is data.division.held:
            return by_main(processes, lambda: list(keeper.scores().values()), room=keeper.room)
        rest = sorted(set(range(len(data.good))) - set(left_out))
        with data.batches(rest, config, processes) as batches:
            objective, guidance = build(
                sources.located(config), keeper.spec, batches, device=device, processes=processes
            )
            ending = train(
                begin(objective, config, steps_per_epoch=len(batches)),
                guidance,
                batches,
                config=config,
                after_epoch=lambda record: record.epoch >= keeper.kept_epoch,
                processes=processes,
            )
        if ending is Ending.INTERRUPTED:
            return None

        def scores() -> list[float]:
            inspector = InferencePath(objective.network, keeper.spec)
            division = dataclasses.replace(data.division, learnt=rest, held=left_out)
            if config.memory:
                remember_good(inspector, data.good, config, division)
            return list(good_scores(inspector, data.good, division).values())

        return by_main(processes, scores, room=keeper.room)

    return cross_fitted(
        [data.division.held, *folds],
        folder=keeper.folder,
        run_id=run_id,
        score_without=score_without,
        writes=processes.is_main,
    )


@dataclass
class _Keeper:
    """Writes the run's folder after each epoch and at the end, and says when the held-out error falls no more.

    Attributes:
        watched: whose error is measured after each epoch.
        on_test: measures some epochs on the test pictures; None where nobody wants it.
        processes: only the main one measures and writes.
        room: where the others wait for it.
    """

    folder: Path
    config: TrainConfig
    spec: ModelSpec
    training: Training
    watched: Batches | None
    board: Board | None
    data: GoodPictures
    on_test: OnTest | None
    processes: Processes
    room: ProcessGroup | None

    def __post_init__(self) -> None:
        self.network = self.training.objective.network
        self._patience = Patience(self.config.patience, self.training.history)

    def __call__(self, record: EpochRecord) -> bool:
        """Keep what the epoch gave; True if the training shall end."""
        better = True
        if (watched := self.watched) is not None:
            error = by_main(
                self.processes,
                lambda: held_out_error(InferencePath(self.network, self.spec), watched),
                room=self.room,
            )
            record = dataclasses.replace(record, held_out=error)
            better = self._patience.improves(error) or not self.config.patience
        self.training.history.append(record)
        if self.processes.is_main:
            lines = [json.dumps(dataclasses.asdict(entry)) for entry in self.training.history]
            write_text(self.folder / "history.jsonl", "\n".join(lines) + "\n")
            if better:
                self._save(self.spec)
            self.training.save(self.folder / STATE_NAME)
            if self.board is not None:
                self.board.show(record, InferencePath(self.network, self.spec))
        self.look_at_test()  # last, so that an epoch is not lost with it
        return self.is_over

    @property
    def is_over(self) -> bool:
        """Whether patience has come to its end, also that of a run that is gone on with."""
        return bool(self.config.patience) and self._patience.over

    def look_at_test(self) -> None:
        """Measure the network on the test pictures, if the epoch at hand is one of those that are."""
        if self.on_test is None:
            return
        epoch = self.training.epoch
        is_last = epoch == self.config.epochs or self.is_over
        scores = self.on_test.look(epoch, InferencePath(self.network, self.spec), is_last=is_last)
        if scores is not None and self.board is not None:
            self.board.show_test(epoch, scores)

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights are the finished network's: with patience the best one, else the last."""
        history = self.training.history
        if not self.config.patience:
            return self.config.epochs
        return min(history, key=lambda record: math.inf if record.held_out is None else record.held_out).epoch

    def take_best(self, ending: Ending) -> None:
        """At the end: have the network be the one that is to be kept."""
        checkpoint = self.folder / CHECKPOINT_NAME
        keeps_best = bool(self.config.patience) and bool(self.training.history) and checkpoint.exists()
        if ending is Ending.INTERRUPTED:
            logger.warning(
                "interrupted; the model is kept as it %s, and stlm resume %s goes on after epoch %d",
                "was in its best epoch" if keeps_best else "is",
                self.folder,
                self.training.epoch,
            )
        elif keeps_best:
            logger.info("%s; the best epoch's weights are kept", ending.value)
        if keeps_best:
            # Of a run that was interrupted it has a memory already; this network gets its own.
            self.network.load_state_dict(without_memory(load(checkpoint).network.state_dict()))

    def remember(self) -> None:
        """At the end: have the network remember good pictures, if it shall."""
        if self.config.memory:
            remember_good(InferencePath(self.network, self.spec), self.data.good, self.config, self.data.division)

    def scores(self) -> dict[int, float]:
        """See `good_scores`."""
        return good_scores(InferencePath(self.network, self.spec), self.data.good, self.data.division)

    def finish(self, scores: Mapping[int, float], *, is_whole: bool) -> None:
        """Choose the threshold and write the finished checkpoint.

        Args:
            scores: number of a good picture → its score by what has learnt from no picture of its part; those that
                `Division.unlearnt` tells are among them, with the scores of this network.
            is_whole: nothing was interrupted, so nobody will go on.
        """
        own, parts = self.data.division.unlearnt(self.network), self.data.parts.of_pictures(list(scores))
        threshold = chosen_threshold(self.config, self.spec, list(scores.values()), parts)
        spec = dataclasses.replace(self.spec, threshold=threshold)
        finished = self._save(with_normal_scores(spec, [scores[number] for number in own]))
        renew_card(self.folder / CHECKPOINT_NAME, finished)
        if is_whole:
            (self.folder / STATE_NAME).unlink(missing_ok=True)
        found = pseudo_found(
            InferencePath(self.network, self.spec),
            self.config,
            self.data.good,
            self.data.division,
            textures=self.data.textures,
            threshold=threshold,
        )
        logger.info("threshold %.6g; %s", threshold.value, "; ".join(expectations(threshold, pseudo_found=found)))

    def _save(self, spec: ModelSpec) -> Checkpoint:
        spec = dataclasses.replace(spec, weights_sha256=fingerprint(self.network.state_dict()))
        made = Checkpoint(self.network, spec, self.config.to_dict(), self.data.parts)
        save(self.folder / CHECKPOINT_NAME, made)
        return made
