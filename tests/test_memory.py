"""Memory that ran out is told from its words, whoever says them, and ends a program with one line."""

from __future__ import annotations

import errno
import os

import click
import pytest

from stlm_edge.cli import run
from stlm_edge.errors import EngineError
from stlm_edge.memory import explained, ran_out

SAID = [
    MemoryError(),
    MemoryError("Unable to allocate 3.00 GiB for an array with shape (1024, 1024, 1024, 3)"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3.81 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("bad allocation"),
    RuntimeError("could not create a primitive"),
    RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 1073741824"),
    RuntimeError("OpenCV(4.12.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 3221225472 bytes"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
]

OTHERS = [
    RuntimeError("shapes differ"),
    RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
    ValueError("expected a contiguous memory format"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
]


@click.command()
@click.argument("number", type=int)
def raising(number: int) -> None:
    raise (SAID + OTHERS)[number]


@pytest.mark.parametrize("number", range(len(SAID)))
def test_each_way_of_saying_it_is_one_line_and_exit_code_1(number, capsys):
    assert run(raising, [str(number)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: memory ")
    assert "end other programs that use it" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("number", range(len(SAID), len(SAID) + len(OTHERS)))
def test_other_errors_stay_what_they_are(number):
    with pytest.raises(type(OTHERS[number - len(SAID)])):
        run(raising, [str(number)])


def test_it_is_seen_behind_what_was_raised_of_it_but_not_behind_what_hides_it():
    wrapped, hidden = RuntimeError("the exporter failed"), RuntimeError("the exporter failed")
    wrapped.__cause__ = MemoryError()
    hidden.__cause__, hidden.__context__ = None, MemoryError()
    hidden.__suppress_context__ = True
    assert ran_out(wrapped)
    assert not ran_out(hidden)
    assert explained(hidden) is None


def test_the_gpus_memory_is_told_from_the_machines():
    assert explained(SAID[2]).startswith("memory of the GPU ran out (CUDA out of memory.")
    assert explained(SAID[0]) == (
        "memory ran out (MemoryError); allow more (ulimit -v, MemoryMax= of the service, the container's limit), end "
        "other programs that use it, or take a machine with more"
    )


def test_our_own_errors_are_told_in_their_own_words(capsys):
    @click.command()
    def failing() -> None:
        raise EngineError("stlm.plan needs more, out of memory; rebuild it")

    assert run(failing, []) == 1
    assert capsys.readouterr().err == "error: stlm.plan needs more, out of memory; rebuild it\n"
