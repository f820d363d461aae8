"""What INT8 costs, class by class, and how far it is taken."""

from __future__ import annotations

import pytest

from export.__main__ import main
from export.graph.graph import Graph
from export.graph.parts import layer_class
from export.precision.int8 import quantised_nodes
from export.precision.sensitivity import harms, quantise_as_much_as


@pytest.fixture(scope="module")
def rows(given, pictures):
    return harms(given, pictures)


def test_each_class_has_its_row_with_the_least_harmful_first(rows, given):
    assert rows[0].layer_class == "none"
    assert rows[0].nodes == 0
    assert {row.layer_class for row in rows[1:]} == set(given.classes())
    errors = [row.p99_map_error for row in rows[1:]]
    assert errors == sorted(errors)
    assert errors[-1] > 2 * rows[0].p99_map_error
    assert all(row.nodes and row.flops_share > 0 for row in rows[1:])
    assert 0.3 < sum(row.flops_share for row in rows) < 1


def test_quantises_as_long_as_it_is_accepted(given, rows):
    order = [row.layer_class for row in rows[1:]]
    asked = []

    def accept(choice: Graph) -> bool:
        asked.append({layer_class(node) for node in quantised_nodes(choice.model)})
        return len(asked) < 3

    quantised = quantise_as_much_as(accept, given=given, order=order)
    assert asked == [set(order[:1]), set(order[:2]), set(order[:3])]
    assert {layer_class(node) for node in quantised_nodes(quantised.model)} == set(order[:2])
    assert quantised.precision == "int8"


def test_what_is_never_accepted_stays_in_fp16(given, rows):
    half = quantise_as_much_as(lambda _: False, given=given, order=[row.layer_class for row in rows[1:]])
    assert half.precision == "fp16"
    assert not quantised_nodes(half.model)


@pytest.mark.slow
def test_command_prints_the_table(traced_engine, good, capsys):
    assert main(["sensitivity", str(traced_engine), "--data", str(good), "--count", "2", "--images", "2"]) == 0
    out = capsys.readouterr().out
    assert "scales from 2 good pictures, seed 0" in out
    for name in ("none", "MLP", "neck", "feature aggregation"):
        assert f"\n{name} " in out


def test_command_refuses_what_it_cannot_use(traced_engine, half, good, tmp_path, capsys):
    in_half, cut = tmp_path / "half.onnx", tmp_path / "cut.onnx"
    half.save(in_half)
    cut.write_bytes(traced_engine.read_bytes()[:1000])
    empty = tmp_path / "empty"
    empty.mkdir()
    for source, data, said in (
        (in_half, good, "is in fp16 already"),
        (cut, good, "truncated or not an ONNX file"),
        (traced_engine, empty, "has no"),
        (traced_engine, tmp_path / "nowhere", "nowhere"),
    ):
        assert main(["sensitivity", str(source), "--data", str(data)]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert said in line
