"""The model card: a `README.md` beside a run's checkpoint, in the form that Hugging Face's hub shows.

What it says is written again whenever figures change. A file that somebody else wrote, or changed, is left alone: ours
carries the SHA-256 of its text.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stlm_edge import __version__
from stlm_edge.errors import StlmError, counted
from stlm_edge.files import write_text
from stlm_edge.names import escaped, markdown
from stlm_edge.network.checkpoint import Checkpoint
from stlm_edge.thresholds.change import expectations
from train.run_told import FIGURES, Measured, RunTold, is_run, told_of

logger = logging.getLogger(__name__)

CARD_NAME = "README.md"

_MARK = re.compile(
    r"^<!-- written by stlm-edge, and again when figures change; text ([0-9a-f]{64}) -->\n", re.MULTILINE
)
_METRICS = {
    "image_auroc": "roc_auc",
    "image_ap": "average_precision",
    "pixel_auroc": "roc_auc",
    "pixel_ap": "average_precision",
    "aupro": "aupro",
}
"""Of ours, what the hub calls them."""
_TASK = "image-segmentation"
"""Of those that the hub has, the one whose answer is a map; there is none for anomalies."""


def renew_card(path: Path, checkpoint: Checkpoint) -> None:
    """Write the card beside the checkpoint of a run; a checkpoint alone gets none.

    What hinders it is warned of and no more: the model itself has been kept by then.
    """
    if not is_run(path.parent):
        return
    card = path.parent / CARD_NAME
    try:
        if card.exists() and not is_ours(card.read_text(encoding="utf-8", errors="replace")):
            logger.info("%s is not as stlm-edge wrote it, so it is left as it is; delete it for a new one", card)
            return
        write_text(card, card_text(told_of(path.parent, checkpoint)))
    except (StlmError, OSError) as error:
        logger.warning("no model card was written: %s", error)


def is_ours(text: str) -> bool:
    """Whether a card is as `card_text` made it."""
    found = _MARK.search(text)
    return found is not None and found[1] == _digest(text.replace(found[0], "", 1))


def card_text(told: RunTold) -> str:
    """The card in Markdown, behind its YAML."""
    head = yaml.safe_dump(_front_matter(told), sort_keys=False, allow_unicode=True, width=120)
    head, body = f"---\n{head}---\n", "\n".join(_body(told)) + "\n"
    mark = f"<!-- written by stlm-edge, and again when figures change; text {_digest(head + body)} -->\n"
    return head + mark + body


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _front_matter(told: RunTold) -> dict[str, Any]:
    category = escaped(told.checkpoint.spec.category)
    matter: dict[str, Any] = {
        "library_name": "stlm-edge",
        "license": "unknown",  # whose pictures these are decides
        "pipeline_tag": _TASK,
        "tags": ["anomaly-detection", "industrial-inspection", "stlm", "stlm-edge"],
    }
    if told.measured is not None and (figures := told.measured.figures):
        matter["metrics"] = sorted({_METRICS[name] for name in figures})
        results = [{"type": _METRICS[name], "value": round(v, 4), "name": FIGURES[name]} for name, v in figures.items()]
        of = {"type": "imagefolder", "name": category, "split": "test"}
        task = {"type": _TASK, "name": "Anomaly detection"}
        matter["model-index"] = [
            {"name": f"stlm {category}", "results": [{"task": task, "dataset": of, "metrics": results}]}
        ]
    return matter


def _body(told: RunTold) -> Iterator[str]:
    spec, record, config = told.checkpoint.spec, told.record, told.checkpoint.config
    height, width = spec.input_size
    yield f"\n# Anomaly detection: {markdown(spec.category)}\n"
    yield (
        "Gives a picture of this part a score and a map of where it is unlike the good ones. Trained with "
        f"[STLM](https://arxiv.org/abs/2402.19145) by stlm-edge {__version__} on good pictures only.\n"
    )
    yield "| | |\n|---|---|"
    yield f"| network | {spec.architecture}, pictures of {height} x {width}, BGR |"
    if record.pictures is not None:
        learnt = counted(record.pictures.count, "good picture")
        parts = told.checkpoint.parts
        yield f"| trained on | {learnt}{'' if parts is None else f' of {parts.count} parts'}{_source(told)} |"
    if spec.memory:
        yield f"| remembers | {spec.memory} patches of good pictures |"
    yield f"| teacher | {_word(config, 'teacher')}, weights {_word(config, 'teacher_weights')} |"
    yield f"| initial weights | {_word(config, 'initial_weights')} |"
    yield f"| epochs, seed | {_word(config, 'epochs')}, {_word(config, 'seed')} |"
    if record.date is not None:
        yield f"| date, device | {markdown(record.date)}, {markdown(record.device or 'unknown')} |"
    yield f"| weights | SHA-256 `{spec.weights_sha256}` |"
    yield "\n## Figures\n"
    if told.measured is None:
        yield "Nobody has measured it on test pictures yet (`stlm evaluate`)."
    else:
        yield from _figures(told.measured)
    yield "\n## Threshold\n"
    yield from _threshold(told)
    yield "\n## Limits\n"
    yield (
        "- It knows one part, as one camera saw it. Another light, lens, position or version of the part may score as "
        "a defect does: train again, or at least choose the threshold again.\n"
        "- What is normal is what the good pictures show; a defect among them is learnt as good.\n"
        "- Defects that are smaller than a few pixels of the input cannot be seen.\n"
        "- The figures are of the test pictures alone. No safety of persons may depend on it."
    )
    yield "\n## Run it\n"
    yield (
        "    pip install 'stlm-edge[export,openvino]'\n"
        "    stlm export model.safetensors -o part.xml --data GOOD_PICTURES\n"
        "    stlm inspect part.xml PICTURES -o results/\n"
        "    stlm camera --engine part.xml --source 0 --output display://\n"
    )
    yield (
        "The licence of this model is for those to say whose pictures it learnt from. stlm-edge is Apache-2.0, as are "
        "SAM's and MobileSAM's weights."
    )


def _figures(measured: Measured) -> Iterator[str]:
    yield f"On {measured.good} good and {measured.defective} defective test pictures, in %:\n"
    yield "| | images | " + " | ".join(FIGURES.values()) + " |\n|---|---|" + "---|" * len(FIGURES)
    for name, scores in [*measured.kinds.items(), ("all", measured.overall)]:
        cells = ["–" if (value := scores.get(figure)) is None else f"{100 * value:.2f}" for figure in FIGURES]
        yield f"| {markdown(name)} | {scores.get('images') or 0:.0f} | " + " | ".join(cells) + " |"


def _threshold(told: RunTold) -> Iterator[str]:
    threshold = told.checkpoint.spec.threshold
    if threshold is None:
        yield "None has been chosen yet (`stlm threshold`)."
        return
    yield f"A picture is anomalous from a score of {threshold.value:.6g} on (method `{threshold.method}`)."
    for line in expectations(threshold, pseudo_found=None):
        yield f"- {markdown(line)}"
    measured = told.measured
    if measured is not None and told.verdicts_hold:
        yield (
            f"- on the test pictures it misses {measured.missed} of {measured.defective} defective ones and calls "
            f"{measured.false_alarms} of {measured.good} good ones anomalous"
        )
    elif measured is not None:
        yield f"- the test pictures were last judged with another threshold, {measured.threshold:.6g}"


def _source(told: RunTold) -> str:
    name = told.record.data_name
    return "" if name is None else f", from {markdown(name)}"


def _word(config: dict[str, Any], name: str) -> str:
    """A setting; of a path its last part."""
    return markdown(Path(str(config.get(name, "unknown"))).name)
