"""Batches: the same whatever makes them, and workers that come and go."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
import torch

from stlm_edge.errors import ConfigError, DataError, TrainingError
from train import workers as workers_module
from train.data import Batches, split_indices
from train.pseudo_anomalies.choice import PseudoAnomalies
from train.pseudo_anomalies.textures import FolderTextures, ProceduralTextures


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(7)]


def make(images, *, textures=None, probability=0.7, **settings) -> Batches:
    pseudo_anomalies = PseudoAnomalies(
        ["perlin", "scar", "hiding"],
        images=images,
        textures=textures or ProceduralTextures(),
        probability=probability,
        largest_beta=0.5,
    )
    return Batches(images, pseudo_anomalies=pseudo_anomalies, **({"batch_size": 2, "seed": 3} | settings))


def alike(first, second) -> bool:
    tensors = [(getattr(first, name), getattr(second, name)) for name in ("clean", "pseudo", "mask")]
    rest = (first.changed, first.keys) == (second.changed, second.keys)
    return rest and all(torch.equal(*pair) for pair in tensors)


@pytest.mark.heavy
@pytest.mark.parametrize("rotation", ["none", "full"])
def test_workers_make_the_same_batches_as_the_main_process(images, rotation):
    with make(images, rotation=rotation) as plain, make(images, rotation=rotation, workers=2) as worked:
        for number in (1, 2):
            pairs = list(zip(plain.epoch(number), worked.epoch(number), strict=True))
            assert len(pairs) == len(plain) == 3
            assert all(alike(*pair) for pair in pairs)


def test_an_epoch_does_not_depend_on_the_ones_before(images):
    first, later = make(images), make(images)
    list(first.epoch(1))
    assert all(alike(*pair) for pair in zip(first.epoch(2), later.epoch(2), strict=True))
    assert not all(alike(*pair) for pair in zip(first.epoch(3), later.epoch(4), strict=True))
    assert not alike(next(iter(first.epoch(1))), next(iter(make(images, seed=4).epoch(1))))


def test_several_processes_share_what_one_would_see(images):
    whole = make(images, batch_size=6)
    parts = [make(images, batch_size=6, process=process, processes=3) for process in range(3)]
    assert all(len(part) == len(whole) == 1 for part in parts)
    for batch, *shares in zip(whole.epoch(1), *(part.epoch(1) for part in parts), strict=True):
        assert [len(share) for share in shares] == [2, 2, 2]
        assert torch.equal(batch.pseudo, torch.cat([share.pseudo for share in shares]))
        assert batch.keys == sum((share.keys for share in shares), ())


def test_batch_that_cannot_be_shared_evenly_is_refused(images):
    with pytest.raises(ConfigError, match="multiple of the 2 processes"):
        make(images, batch_size=3, processes=2)
    with pytest.raises(DataError, match="start fewer processes"):
        make(images, batch_size=8, processes=8)
    assert len(next(iter(make(images, batch_size=30, processes=3).epoch(1)))) == 2  # 6 of 7 pictures


def test_pictures_that_come_back_have_a_key_and_turned_ones_none(images):
    first, second = ({key for batch in make(images).epoch(number) for key in batch.keys} for number in (1, 2))
    assert len(first) == len(second) == 6
    assert len(first & second) >= 5
    assert len({len(key) for key in first}) == 1
    for batch in make(images, rotation="slight").epoch(1):
        assert batch.keys == (None, None)


def test_same_pixels_in_another_shape_have_another_key():
    wide = np.zeros((32, 64, 3), np.uint8)
    keys = [next(iter(make([image], batch_size=1).epoch(1))).keys for image in (wide, wide.reshape(64, 32, 3))]
    assert keys[0] != keys[1]


def test_changed_says_where_pseudo_differs_from_clean(images):
    seen = set()
    for number in range(1, 6):
        for batch in make(images, probability=0.5).epoch(number):
            differs = (batch.clean != batch.pseudo).flatten(1).any(1).tolist()
            assert list(batch.changed) == differs
            seen |= set(differs)
            outside = batch.mask[:, 0] == 0
            assert batch.mask.dtype == torch.float32
            assert outside.any()
    assert seen == {True, False}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.heavy)])
def test_batches_count_what_came_out_empty(images, workers):
    with make(images, probability=1.0, workers=workers) as batches:
        for batch in batches.epoch(1):
            assert batch.tried == len(batch)
            assert batch.empty == int((batch.mask.flatten(1).sum(1) == 0).sum())
    with make(images, probability=0.0, workers=workers) as batches:
        assert {(batch.tried, batch.empty) for batch in batches.epoch(1)} == {(0, 0)}


def test_batch_moves_as_a_whole(images):
    batch = next(iter(make(images).epoch(1)))
    moved = batch.to("meta")
    assert {moved.clean.device.type, moved.pseudo.device.type, moved.mask.device.type} == {"meta"}
    assert (moved.changed, moved.keys, len(moved)) == (batch.changed, batch.keys, 2)


@pytest.mark.heavy
def test_close_ends_the_workers_also_in_the_middle_of_an_epoch(images):
    batches = make(images, workers=2)
    epoch = batches.epoch(1)
    next(epoch)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert not multiprocessing.active_children()
    assert alike(next(iter(batches.epoch(2))), next(iter(make(images).epoch(2))))
    batches.close()


@pytest.mark.heavy
def test_an_epoch_cut_short_leaves_the_next_one_whole(images):
    with make(images, workers=2) as batches:
        next(iter(batches.epoch(1)))
        assert all(alike(*pair) for pair in zip(batches.epoch(2), make(images).epoch(2), strict=True))


@pytest.mark.heavy
def test_random_numbers_of_the_training_are_not_touched_by_workers(images):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with make(images, workers=1) as batches:
        list(batches.epoch(1))
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.heavy
def test_error_in_a_worker_is_the_same_one_line(images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    textures = FolderTextures([tmp_path / "broken.png"])
    with make(images, workers=1, textures=textures, probability=1.0) as batches, pytest.raises(DataError) as caught:
        for number in range(1, 20):
            list(batches.epoch(number))
    assert str(caught.value).startswith("none of the textures can be read")


@pytest.mark.heavy
def test_killed_worker_is_one_line(images, monkeypatch):
    monkeypatch.setattr(PseudoAnomalies, "draw", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with make(images, workers=1) as batches, pytest.raises(TrainingError, match="worker processes was killed"):
        list(batches.epoch(1))


@pytest.mark.heavy
def test_fault_in_the_code_that_runs_in_a_worker_is_told_with_its_traceback(images, monkeypatch):
    monkeypatch.setattr(PseudoAnomalies, "draw", lambda *_: int("none"))
    with make(images, workers=1) as batches, pytest.raises(ValueError, match="Traceback"):
        list(batches.epoch(1))


def test_too_little_shared_memory_is_said_before_a_worker_dies_of_it(images, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(workers_module.shutil, "disk_usage", lambda _: usage(1, 1, 100_000))
    with make(images, workers=1) as batches, pytest.raises(ConfigError, match="--shm-size"):
        list(batches.epoch(1))


@pytest.mark.heavy
def test_more_workers_than_cores_is_said(images, caplog, monkeypatch):
    monkeypatch.setattr(workers_module.os, "sched_getaffinity", lambda _: {3})
    with make(images[:2], workers=2) as batches:
        assert len(list(batches.epoch(1))) == 1
    assert "2 workers share 1 cores" in caplog.text


@pytest.mark.heavy
def test_ctrl_c_is_left_to_the_main_process(tmp_path):
    """The whole process group gets the signal, as from a terminal; the main process decides to go on."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, numpy as np\n"
        "from train.data import Batches\n"
        "from train.pseudo_anomalies.choice import PseudoAnomalies\n"
        "from train.pseudo_anomalies.textures import ProceduralTextures\n"
        "signal.signal(signal.SIGINT, lambda *_: print('noted', flush=True))\n"
        "images = [np.zeros((64, 64, 3), np.uint8)] * 4\n"
        "pseudo = PseudoAnomalies(['perlin'], images=images, textures=ProceduralTextures(), probability=1.0,\n"
        "    largest_beta=0.5)\n"
        "with Batches(images, pseudo_anomalies=pseudo, batch_size=1, seed=0, workers=2) as batches:\n"
        "    print(len(list(batches.epoch(1))), flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print(len(list(batches.epoch(2))), flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline().strip() == "4"
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    out, errors = process.communicate("\n", timeout=60)
    assert out.split() == ["noted", "4"], errors
    assert process.returncode == 0
    assert errors == ""


def test_pictures_of_parts_of_their_own_are_divided_as_before_there_were_parts():
    """What was held out of a checkpoint stays so: an order of pictures is drawn, and its beginning is held out."""
    for count, holdout, seed in ((20, 0.2, 3), (2, 0.1, 0), (7, 0.9, 1), (200, 0.1, 5)):
        order = np.random.default_rng(seed).permutation(count).tolist()
        held = min(max(1, round(holdout * count)), count - 1)
        expected = sorted(order[held:]), sorted(order[:held])
        assert split_indices(range(count), holdout=holdout, seed=seed) == expected
    with pytest.raises(DataError, match="at least 2"):
        split_indices([0], holdout=0.2, seed=3)


def test_pictures_of_a_part_go_the_same_way():
    parts = [index // 4 for index in range(200)]
    for seed in range(20):
        training, held_out = split_indices(parts, holdout=0.1, seed=seed)
        assert sorted(training + held_out) == list(range(200))
        assert not {parts[index] for index in training} & {parts[index] for index in held_out}
        assert len(held_out) == 20


def test_part_with_most_pictures_is_learnt_from():
    parts = [0] * 90 + [1] * 5 + [2] * 5
    for seed in range(20):
        training, held_out = split_indices(parts, holdout=0.34, seed=seed)
        assert len(held_out) == 5 and set(range(90)) <= set(training)
    with pytest.raises(DataError, match="10 good pictures of 1 part"):
        split_indices([0] * 10, holdout=0.1, seed=0)
