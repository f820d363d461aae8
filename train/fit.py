"""One training run from a folder of pictures to a finished checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import torch
import yaml

from stlm_edge.datasets import load_category
from stlm_edge.errors import OutputError
from stlm_edge.files import make_folder, write_text
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.encoder import architecture_named
from stlm_edge.network.inspector import Inspector, prepare
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint, load_initial, locate
from stlm_edge.spec import ModelSpec, Threshold
from train.config import TrainConfig, from_dict
from train.data import Batches, load_images, split
from train.device import choose_device
from train.evaluate import score_images
from train.exposure import Variation
from train.loop import EpochLosses, train
from train.pseudo import PseudoAnomalies
from train.teacher import build_teacher, settle
from train.textures import texture_source
from train.threshold import good_quantile

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "model.safetensors"
SETTLING_IMAGES = 16


def fit(config: TrainConfig, *, data: Path, category: str | None, textures: Path | None, output: Path | None) -> Path:
    """Train, choose the threshold and write the run's folder.

    The folder gets `model.safetensors` (after each epoch, and with its threshold at the end), `config.yaml` and
    `history.jsonl`, one line of losses for each epoch.

    Returns:
        The checkpoint's path.
    Raises:
        StlmError: in the words of whatever is wrong with data, weights, settings or the output folder.
    """
    device = choose_device(config.device)
    loaded = load_category(data, category)
    source = texture_source(textures)
    folder = output or Path("runs") / loaded.name
    checkpoint = folder / CHECKPOINT_NAME
    if checkpoint.exists():
        raise OutputError(f"{checkpoint} exists; choose another folder with --output, or delete it")
    make_folder(folder)
    good = load_images(loaded.train, size=config.image_size, skip_corrupt=config.skip_corrupt)
    images, held_out = split(good, holdout=config.holdout, seed=config.seed)

    torch.manual_seed(config.seed)
    network = Stlm(architecture_named(config.architecture))
    if config.initial_weights is None:
        logger.warning(
            "NO INITIAL WEIGHTS: both streams and the decoder start RANDOM; give --initial-weights: "
            "MobileSAM's for stlm, or a checkpoint of the same architecture"
        )
    else:
        logger.info("initial weights: %s", load_initial(network, locate(config.initial_weights)))
    network.to(device)
    spec = ModelSpec(
        category=loaded.name,
        architecture=config.architecture,
        input_size=config.image_size,
        map_size=config.image_size,
        weights_sha256="",
    )
    teacher = build_teacher(config.teacher, weights=config.teacher_weights, image_size=config.image_size).to(device)
    if config.teacher_weights is None:
        settle(teacher, prepare(torch.from_numpy(np.stack(images[:SETTLING_IMAGES])).to(device), spec))
    pseudo_anomalies = PseudoAnomalies(
        config.pseudo_anomalies.split("+"),
        images=images,
        textures=source,
        probability=config.anomaly_probability,
        largest_beta=config.largest_beta,
    )
    batches = Batches(
        images,
        pseudo_anomalies=pseudo_anomalies,
        variation=Variation(config.exposure_jitter, config.flip_horizontal, config.flip_vertical),
        batch_size=config.batch_size,
        seed=config.seed,
    )
    write_text(folder / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    history: list[str] = []

    def keep(losses: EpochLosses) -> None:
        history.append(json.dumps(dataclasses.asdict(losses)))
        write_text(folder / "history.jsonl", "\n".join(history) + "\n")
        save(checkpoint, _finished(network, spec, config))

    logger.info(
        "training %s on %d pictures (%d held out) at %d x %d on %s",
        config.architecture,
        len(images),
        len(held_out),
        *config.image_size,
        device,
    )
    if not train(network, teacher, batches, spec=spec, config=config, after_epoch=keep):
        logger.warning("interrupted; the model is kept as it is")
    scores = score_images(Inspector(network, spec), held_out)
    threshold = good_quantile(scores, false_alarm_rate=config.false_alarm_rate)
    spec = dataclasses.replace(spec, threshold=threshold, normal_score_range=(min(scores), max(scores)))
    save(checkpoint, _finished(network, spec, config))
    logger.info(
        "threshold %.4f from %d held-out good pictures, expected false-alarm rate %.3g",
        threshold.value,
        threshold.images,
        threshold.false_alarm_rate,
    )
    return checkpoint


def recalibrate(
    path: Path, *, data: Path, category: str | None, device: str, false_alarm_rate: float | None
) -> tuple[Threshold | None, Threshold]:
    """Choose the threshold of a checkpoint again and write it there.

    With the data it was trained on, the pictures are those that the training held out.

    Returns:
        The threshold before (None if there was none) and the new one.
    """
    checkpoint = load(path)
    config = from_dict(checkpoint.config)
    samples = load_category(data, category).train
    good = load_images(samples, size=checkpoint.spec.input_size, skip_corrupt=config.skip_corrupt)
    _, held_out = split(good, holdout=config.holdout, seed=config.seed)
    scores = score_images(Inspector(checkpoint.network, checkpoint.spec).to(choose_device(device)), held_out)
    rate = config.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
    threshold = good_quantile(scores, false_alarm_rate=rate)
    spec = dataclasses.replace(checkpoint.spec, threshold=threshold, normal_score_range=(min(scores), max(scores)))
    save(path, dataclasses.replace(checkpoint, spec=spec))
    return checkpoint.spec.threshold, threshold


def _finished(network: Stlm, spec: ModelSpec, config: TrainConfig) -> Checkpoint:
    return Checkpoint(
        network, dataclasses.replace(spec, weights_sha256=fingerprint(network.state_dict())), config.to_dict()
    )
