"""Several processes compute what one computes with the same global batch."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from stlm_edge.network.checkpoint import load
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.distributed import SharedBatchNorm2d, share_batch_norms
from train.on_test import HISTORY_NAME, read_history

SETTINGS = {
    "SGD": ["--head-optimiser", "sgd", "--segmentation-loss", "focal-l1"],
    # Two pooled values amplify rounding from step to step.
    "Adam, one picture each": ["--head-optimiser", "adam", "--batch-size", "2", "--epochs", "1"],
}


def fit_words(plate, output, name):
    small = ["--preset", TWO_STREAMS, "--device", "cpu", "--image-size", "64", "--batch-size", "4", "--epochs", "3"]
    return ["fit", "--data", str(plate), "--category", "plate", "-o", str(output), *small, *SETTINGS[name]]


def losses(run):
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [(line["plain"], line["denoising"], line["segmentation"]) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_of_accelerate_have_the_losses_of_one(name, plate, tmp_path):
    # accelerate's --cpu needs MPI to start more than one; this way it starts them as for GPUs, and we stay on the CPU.
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    assert main(fit_words(plate, tmp_path / "one", name)) == 0
    words = [*fit_words(plate, tmp_path / "two", name), "--evaluate-every", "2"]  # by the main one, the other waits
    command = [sys.executable, *launcher, "-m", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two[0] == pytest.approx(one[0], rel=2e-5 if name == "SGD" else 5e-4)
    for alone, shared in zip(one, two, strict=True):  # rounding grows from step to step, as it does between machines
        assert shared == pytest.approx(alone, rel=3e-3)
    assert done.stdout.count("model.safetensors") == 1
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    measured = [row.epoch for row in read_history(tmp_path / "two" / HISTORY_NAME)]
    assert measured == [epoch for epoch in (1, 2, 3) if epoch % 2 == 0 or epoch == len(two)][: len(two)]
    ours, theirs = (load(tmp_path / count / "model.safetensors").network for count in ("one", "two"))
    for (key, value), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.allclose(value.float(), other.float(), atol=2e-2), key


@pytest.fixture
def two_machines(tmp_path) -> Iterator[tuple[list[str], list[str], dict[str, str]]]:
    """Words before a program that runs it on one of two machines, and what both are told of their network.

    They are network namespaces where those may be made, so that nothing but their link connects them; else this machine
    under its own address.
    """
    names = [f"stlm-{os.getpid()}-{number}" for number in (0, 1)]
    commands = [f"ip netns add {name}" for name in names]
    commands += [f"ip link add machine netns {names[0]} type veth peer name machine netns {names[1]}"]
    for number, name in enumerate(names):
        inside = f"ip -n {name}"
        commands += [f"{inside} addr add 10.77.0.{number + 1}/24 dev machine", f"{inside} link set machine up"]
        commands += [f"{inside} link set lo up"]
    try:
        if shutil.which("ip") is None or any(
            subprocess.run(line.split(), capture_output=True, check=False).returncode for line in commands
        ):
            yield [], [], {"MASTER": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        else:
            inside = [["ip", "netns", "exec", name] for name in names]
            yield *inside, {"MASTER": "10.77.0.1", "GLOO_SOCKET_IFNAME": "machine"}
    finally:
        for name in names:
            if shutil.which("ip") is not None:
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def on_both(two_machines, words) -> list[tuple[int, str]]:
    """Exit code and log of the same training on two machines; `words` are of each."""
    first, second, network = two_machines
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | network
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    started = []
    for rank, before in enumerate((first, second)):
        launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
        launcher += ["--master-addr", network["MASTER"], "--master-port", str(port), "-m", "train"]
        command = [*before, sys.executable, *launcher, *words[rank]]
        started.append(
            subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        )
    told = [process.communicate(timeout=200) for process in started]
    return [(process.returncode, "".join(said)) for process, said in zip(started, told, strict=True)]


@pytest.mark.heavy
def test_two_machines_have_the_losses_of_one_and_the_first_alone_writes(two_machines, plate, tmp_path):
    assert main(fit_words(plate, tmp_path / "one", "SGD")) == 0
    words = [fit_words(plate, tmp_path / name, "SGD") for name in ("two", "two")]
    (code, said), (other_code, other_said) = on_both(two_machines, words)
    assert (code, other_code) == (0, 0), said + other_said
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two[0] == pytest.approx(one[0], rel=2e-5)
    for alone, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(alone, rel=3e-3)
    assert "threshold" in said
    assert "threshold" not in other_said
    assert "model.safetensors" not in other_said


@pytest.mark.slow
@pytest.mark.parametrize("lacks", ["a picture", "all"])
def test_machines_with_other_pictures_are_refused_in_both(lacks, two_machines, plate, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(plate, data)
    (picture, *_) = sorted((data / "plate" / "train" / "good").iterdir())
    picture.unlink() if lacks == "a picture" else shutil.rmtree(data)
    words = [fit_words(folder, tmp_path / "run", "SGD") for folder in (plate, data)]
    expected = "5 good pictures" if lacks == "a picture" else str(data)
    for code, said in on_both(two_machines, words):
        assert code == 1
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert "process 1 on " in line
        assert expected in line
    assert not (tmp_path / "run").exists()


WAITING = """
import time
from datetime import timedelta
import torch
import torch.distributed as dist
from train.distributed import agree, joined, waiting_room

with joined(torch.device("cpu")) as (processes, device):
    room = waiting_room(processes)
    agree(False, device, room=room)
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=1))
    for where in (room, None):
        if processes.is_main:
            time.sleep(2)
        try:
            print(agree(processes.is_main, device, room=where), flush=True)
        except RuntimeError:
            print("gave up", flush=True)
"""


@pytest.mark.slow
def test_others_wait_for_the_main_process_longer_than_for_each_other():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    others = [
        subprocess.Popen(
            [sys.executable, "-c", WAITING], env={**where, "RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    assert [process.communicate(timeout=120)[0].split("\n")[:2] for process in others] == [["True", "gave up"]] * 2


def test_batch_norm_is_torchs_own_without_other_processes():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    shared = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    share_batch_norms(shared)
    assert isinstance(shared[0], SharedBatchNorm2d)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(plain(x), shared(x))
    assert list(plain.state_dict()) == list(shared.state_dict())
