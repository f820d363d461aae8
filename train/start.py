"""What a training starts with: the network and its losses, and the teacher that guides them."""

from __future__ import annotations

import copy
import dataclasses
import logging
from pathlib import Path

import numpy as np
import torch

from stlm_edge.errors import StlmError, counted
from stlm_edge.network.checkpoint import load
from stlm_edge.network.encoder import architecture_named
from stlm_edge.network.inference import prepare
from stlm_edge.network.initial import draw_start, load_initial
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.network.weights import PUBLISHED, locate, read_tensors
from stlm_edge.seen import SeenPictures
from stlm_edge.spec import ModelSpec
from train.config import RANDOM, TrainConfig
from train.data import Batches
from train.distributed import Processes, main_first, share_batch_norms
from train.good_pictures import GoodPictures
from train.left_out import ALL, Division
from train.objective import Objective
from train.record import Begun
from train.teaching.guidance import Guidance, make_guidance
from train.teaching.teacher import mask_head_tensors, teacher_of
from train.training import restore_plain

logger = logging.getLogger(__name__)

HEAD_ONLY = ("comparison", "aggregation", "heads", "folds", "patience")
"""Settings that one might take for having an effect where nothing is trained."""


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
    network = network_of(config)
    draw_start(network, aggregation=config.aggregation_start, encoders=config.encoder_start)
    frozen = network.plain if isinstance(network.plain, Teacher) else None
    with main_first(processes):
        comes_along = give_initial(network, config, state)
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
                frozen.origin = teacher.origin
    if teacher is not None and network.denoising is not None:
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


def network_of(config: TrainConfig) -> Stlm:
    """The network that learns, as torch draws it. Raises `ConfigError` if the settings do not go together."""
    # A memory comes last, of all good pictures; a network that is nothing else has its place from the start.
    design = dataclasses.replace(config.design, memory=0, memory_neighbours=1) if config.epochs else config.design
    network = Stlm(architecture_named(config.architecture), design, image_size=config.image_size)
    if config.memory:
        network.require_maps()
    return network


def warn_of_what_is_known(config: TrainConfig, data: GoodPictures, network: Stlm) -> None:
    """Say so where initial weights have learnt from pictures that the threshold will be chosen by as new ones.

    A checkpoint of the same pictures, divided the same way, has not: what leaves a picture out has always done so.
    """
    try:
        path = locate(config.initial_weights) if config.epochs and config.initial_weights != RANDOM else None
        started = None if path is None else load(path, threshold_is_needed=False)
    except StlmError:  # weights of others, which are of other pictures
        return
    if started is None or started.network.feature_aggregation is None:
        return
    is_same = all(started.config.get(name) == getattr(config, name) for name in ("heads", "holdout", "seed"))
    if is_same and started.parts is not None and started.parts.numbers == data.parts.numbers:
        return
    known = SeenPictures(started.spec)
    for number in data.division.unlearnt(network):
        known.add(data.digests[number], name=f"number {number + 1}")
    if known.found:
        logger.warning(
            "SEEN PICTURES: the initial weights have learnt from %d of the %s that choose the threshold, so it may be "
            "too low; train with the seed, heads, holdout and parts of those weights, or choose it by new pictures",
            len(known.found),
            counted(known.count, "good picture"),
        )


def taught_by(network: Stlm, guidance: Guidance | None, begun: Begun | None) -> str | None:
    """Where the teacher's weights are from, see `write_record`; None where there is no teacher."""
    if begun is not None and begun.taught_by is not None:
        return begun.taught_by  # a state has the tensors of a frozen stream, not where they were from
    teacher = network.plain if guidance is None else guidance.teacher
    return teacher.origin if isinstance(teacher, Teacher) else None


def give_initial(network: Stlm, config: TrainConfig, state: Path | None) -> bool:
    """Give a network what it starts from; True if a frozen plain stream has its weights from there."""
    frozen = network.plain if isinstance(network.plain, Teacher) else None
    if state is not None:
        if frozen is not None:
            restore_plain(frozen, state)
        return frozen is not None
    if network.denoising is None and config.initial_weights == RANDOM:
        return False  # nothing but perhaps a head learns, for which there are no published weights
    if not config.epochs and config.initial_weights in PUBLISHED:
        logger.info("initial weights: %s is for what learns, which nothing does", config.initial_weights)
        return False
    if config.initial_weights == RANDOM:
        logger.warning(
            "NO INITIAL WEIGHTS: both streams and the decoder start RANDOM; give --initial-weights: "
            "MobileSAM's for stlm, or a checkpoint of the same architecture"
        )
        return False
    report = load_initial(network, locate(config.initial_weights), random_encoders=config.random_encoders)
    logger.info("initial weights: %s", report)
    return report.gives_plain


def tell_what_is_done(
    config: TrainConfig, data: GoodPictures, batches: Batches, *, device: torch.device, processes: int
) -> None:
    """Log it."""
    if not config.epochs:
        idle = [name for name in HEAD_ONLY if getattr(config, name) != getattr(TrainConfig, name)]
        told = ", ".join(f"{name} {getattr(config, name)}" for name in idle)
        logger.info(
            "nothing is trained: the network is plain stream and memory alone%s",
            f"; what is for a head has no effect: {told}" if told else "",
        )
        return
    logger.info(
        "training %s on %s (%s) at %d x %d, %d in a step, on %s%s",
        f"{counted(config.heads, 'head')} on {config.teacher}" if config.design.sees_plain else config.architecture,
        counted(len(data.division.learnt), "picture"),
        _told(data.division, heads=config.heads),
        *config.image_size,
        batches.batch_size,
        device,
        f" and {processes - 1} more" if processes > 1 else "",
    )
    if batches.batch_size == 1 and config.aggregation != "none":
        logger.info(
            "one picture in a step: what is pooled over it is normalised by running statistics, which stay as they "
            "are; with two in a step they are learnt"
        )


def _told(division: Division, *, heads: int) -> str:
    """Which pictures the threshold will be from, for people."""
    if heads > 1:
        lacking = len(set(division.folds) - {ALL})
        each = "each" if lacking == heads else f"{lacking} of them"
        return f"{each} without another share of {counted(len(set(division.parts)), 'part')}"
    parts = {division.parts[number] for number in division.held}
    return f"{len(division.held)} of {counted(len(parts), 'part')} held out"
