from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stlm_edge.errors import CheckpointError
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint
from stlm_edge.spec import ModelSpec


@pytest.fixture
def saved(tmp_path):
    network = Stlm(ARCHITECTURES["stlm-tiny"]).eval()
    spec = ModelSpec("plate", "stlm-tiny", (64, 64), (64, 64), fingerprint(network.state_dict()), highest_score=1.0)
    path = tmp_path / "model.safetensors"
    save(path, Checkpoint(network, spec, {"epochs": 1}))
    return path, network, spec


def test_weights_spec_and_configuration_come_back(saved):
    path, network, spec = saved
    loaded = load(path)
    assert loaded.spec == spec
    assert loaded.config == {"epochs": 1}
    assert not loaded.network.training
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), loaded.network.parameters(), strict=True))


def test_written_file_may_be_read_by_whoever_may_read_others(saved):
    path = saved[0]
    new = path.with_name("new")
    new.touch()
    assert path.stat().st_mode == new.stat().st_mode


def test_missing_damaged_and_foreign_files_are_refused(saved, tmp_path):
    path, _, _ = saved
    with pytest.raises(CheckpointError, match="is no file"):
        load(tmp_path / "nothing.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no specification"):
        load(tmp_path / "foreign.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load(path)


def test_altered_weights_are_noticed(saved):
    path, _, spec = saved
    tensors = load_file(path)
    tensors["feature_aggregation.head.out.bias"] += 1
    save_file(tensors, path, metadata={"spec": spec.to_json(), "config": "{}"})
    with pytest.raises(CheckpointError, match="altered"):
        load(path)


@pytest.mark.parametrize(("layers", "highest"), [("l1+l2", 4.0), ("l1", 2.0)])
def test_highest_score_is_the_designs_also_where_the_file_does_not_say_it(tmp_path, layers, highest):
    network = Stlm(ARCHITECTURES["stlm-tiny"], Design(layers=layers, aggregation="none"), image_size=(64, 64))
    spec = ModelSpec("plate", "stlm-tiny", (64, 64), (64, 64), fingerprint(network.state_dict()))
    save(tmp_path / "a.safetensors", Checkpoint(network, spec, {}))
    assert load(tmp_path / "a.safetensors").spec.highest_score == highest


def test_edited_specification_is_refused_and_one_from_before_the_seal_read(saved):
    path, _, spec = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    edited = metadata | {"spec": metadata["spec"].replace('"top_k": 100', '"top_k": 101')}
    save_file(tensors, path, metadata=edited)
    with pytest.raises(CheckpointError, match="another SHA-256 than it says"):
        load(path)
    del metadata["sha256"]
    save_file(tensors, path, metadata=metadata)
    assert load(path).spec == spec


@pytest.mark.parametrize(
    "changes", [{"spec": "[]"}, {"config": "[1]"}, {"config": "{"}, {"design": "{}"}, {"design": '{"layers": ' * 9999}]
)
def test_metadata_that_is_none_is_one_line(saved, changes):
    path, _, _ = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del metadata["sha256"]
    save_file(load_file(path), path, metadata=metadata | changes)
    with pytest.raises(CheckpointError, match="does not fit this version"):
        load(path)
