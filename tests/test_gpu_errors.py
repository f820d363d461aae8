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


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("no kernel image is available for execution on the device", "build the plan"),
        ("the provided PTX was compiled with an unsupported toolchain.", "update the driver"),
        ("CUDA initialization failure with error: 804", "library of CUDA newer than the driver"),
        ("Unable to load library: libcuda.so.1", "there is no NVIDIA driver here"),
        ("Error Code 1: Cublas (CUBLAS_STATUS_ALLOC_FAILED)", "free GPU memory"),
        ("Requested amount of GPU memory (536870912 bytes) could not be allocated", "free GPU memory"),
        ("NvMapMemAllocInternalTagged: 1075072515 error 12; NvMap error 12", "free GPU memory"),
        ("insufficient workspace for any tactic", "--workspace"),
    ],
)
def test_words_of_the_driver_and_of_libraries_have_their_remedies(told, words):
    """As CUDA's reference lists the errors 2, 209, 222 and 804, and libraries repeat them."""
    assert words in str(remedy_for(told))


def test_word_driver_alone_does_not_blame_the_driver():
    assert remedy_for("Serialization (the engine was made by another driver program)") is None


def test_every_cause_is_there_with_its_source():
    assert {told["cause"] for told in TOLD} == set(REMEDIES)
    assert all(told["from"] for told in TOLD)


def test_first_cause_counts_when_a_failure_draws_others_after_it():
    """TensorRT goes on telling of what can no longer work."""
    after = "; ".join(told["text"] for told in TOLD if told["cause"] in ("driver", "lost"))
    assert "was lost" in str(remedy_for(after))
    memory = "; ".join(told["text"] for told in TOLD if told["cause"] in ("driver", "memory"))
    assert "free GPU memory" in str(remedy_for(memory))
