"""A checkpoint: one safetensors file that holds the weights, the specification and the run's configuration."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialised

from stlm_edge.datasets import Parts
from stlm_edge.errors import CheckpointError, SpecError, StlmError
from stlm_edge.files import write_bytes
from stlm_edge.memory import ran_out
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import architecture_named
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint
from stlm_edge.records import build, parse
from stlm_edge.seal import sealed, unsealed
from stlm_edge.spec import ModelSpec, Size

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with what is needed to judge and to export it.

    Attributes:
        config: the settings of the run that trained it, as `train.config` reads and writes them.
        parts: of the good pictures that it was trained on and those held out; None in one from before they were told,
            whose pictures were divided one by one.
    """

    network: Stlm
    spec: ModelSpec
    config: dict[str, Any]
    parts: Parts | None = None


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, atomically. Raises `OutputError`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.network.state_dict().items()}
    metadata = {
        "spec": checkpoint.spec.to_json(),
        "design": checkpoint.network.design.to_json(),
        "config": json.dumps(checkpoint.config),
    }
    if checkpoint.parts is not None:
        metadata["parts"] = json.dumps(checkpoint.parts.to_record())
    # Not by `save_file`, which writes a file of its own first: a kill would leave it, and its owner alone may read it.
    write_bytes(path, serialised(tensors, metadata=sealed(metadata)))


def load(path: Path, *, threshold_is_needed: bool = True) -> Checkpoint:
    """Read a checkpoint back onto the CPU, in evaluation mode.

    Args:
        threshold_is_needed: False for whoever chooses another one; one that no score can reach is then left out with a
            warning.
    Raises:
        CheckpointError: if the file is missing, damaged or no checkpoint of this toolkit.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; expected a checkpoint, such as runs/NAME/model.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        if ran_out(error):
            raise
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); copy it again, or train again"
        ) from None
    if not {"spec", "config"} <= set(metadata):
        raise CheckpointError(f"{path} holds tensors but no specification; expected what 'stlm train' writes")
    metadata = unsealed(metadata, path, error=CheckpointError, remedy="copy it again, or train again")
    try:
        config = parse(metadata["config"], what="the configuration")
        design = Design.from_json(metadata["design"]) if "design" in metadata else Design()  # before there were others
        written = metadata.get("parts")
        parts = None if written is None else Parts.from_record(parse(written, what="the list of parts"))
        try:
            spec = _spec(metadata["spec"], design)
        except SpecError as error:
            if threshold_is_needed:
                raise
            spec = _spec(metadata["spec"], design, leave_out=("threshold",))
            logger.warning("the threshold in %s is left out (%s)", path, error)
        network = Stlm(architecture_named(spec.architecture), design, image_size=spec.input_size)
        network.load_state_dict(tensors)
    except (StlmError, RuntimeError) as error:
        if ran_out(error):
            raise
        raise CheckpointError(f"{path} does not fit this version of stlm-edge ({error}); train again") from None
    if fingerprint(tensors) != spec.weights_sha256:
        raise CheckpointError(f"{path} has other weights than its specification says; it was altered, train again")
    return Checkpoint(network=network.eval(), spec=spec, config=config, parts=parts)


def _spec(text: str, design: Design, *, leave_out: Sequence[str] = ()) -> ModelSpec:
    """The specification, with what the design says: the highest possible score, the memory. Raises `SpecError`."""
    found = parse(text, what="the model specification") | dict.fromkeys(leave_out)
    return dataclasses.replace(
        build(ModelSpec, found),
        highest_score=design.highest_score,
        memory=design.memory,
        memory_neighbours=design.memory_neighbours,
    )


def resized(trained: Checkpoint, size: Size) -> Checkpoint:
    """The same weights for pictures of another size; windows and positions of the network follow the input.

    The threshold stays: it was found at the old size and has to be chosen again before such a network is used.

    Args:
        size: (height, width).
    Raises:
        SpecError: if `size` is not a multiple of 32.
    """
    spec = dataclasses.replace(trained.spec, input_size=size, map_size=size)
    network = Stlm(architecture_named(spec.architecture), trained.network.design, image_size=size)
    network.load_state_dict(trained.network.state_dict())
    return Checkpoint(network.eval(), spec, trained.config, trained.parts)
