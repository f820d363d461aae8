"""What TensorRT and CUDA's driver really write, by public reports, and what is to be done about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stlm_edge.gpu_errors import remedy_for

TOLD = json.loads(Path(__file__).with_name("gpu_errors.json").read_text())
REMEDIES = {
    "plan": None,
    "memory": "free GPU memory",
    "old driver": "pip install tensorrt-cu12",
    "no gpu": "look whether nvidia-smi lists a GPU",
    "incomplete": "install it again",
    "lost": "the GPU has failed or was lost",
    "driver": "check the driver with nvidia-smi",
}
"""What is to blame → the beginning or the middle of the remedy; None where it is the plan."""


@pytest.mark.parametrize("told", TOLD, ids=[f"{told['cause']}-{told['text'][:40]}" for told in TOLD])
def test_remedy_fits_what_is_told(told):
    words, remedy = REMEDIES[told["cause"]], remedy_for(told["text"])
    if words is None:
        assert remedy is None
    else:
        assert remedy is not None
        assert words in remedy


def test_every_cause_is_there_with_its_source():
    assert {told["cause"] for told in TOLD} == set(REMEDIES)
    assert all(told["from"] for told in TOLD)


def test_first_cause_counts_when_a_failure_draws_others_after_it():
    """TensorRT goes on telling of what can no longer work."""
    after = "; ".join(told["text"] for told in TOLD if told["cause"] in ("driver", "lost"))
    assert "was lost" in str(remedy_for(after))
    memory = "; ".join(told["text"] for told in TOLD if told["cause"] in ("driver", "memory"))
    assert "free GPU memory" in str(remedy_for(memory))
