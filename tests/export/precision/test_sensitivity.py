"""What INT8 costs, class by class, and how far it is taken."""

from __future__ import annotations

import onnx
import pytest

from export.__main__ import main
from export.precision.apply import precision_of, with_precision
from export.precision.gain import BuildCost, expected_gain
from export.precision.int8 import quantised_nodes
from export.precision.layer_classes import layer_class
from export.precision.sensitivity import calibrated, harms, quantise_as_much_as


@pytest.fixture(scope="module")
def given(graph, good):
    return calibrated(graph, good, count=4, seed=0)


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

    def accept(model: onnx.ModelProto) -> bool:
        asked.append({layer_class(node) for node in quantised_nodes(model)})
        return len(asked) < 3

    model, record = quantise_as_much_as(accept, given=given, order=order)
    assert asked == [set(order[:1]), set(order[:2]), set(order[:3])]
    assert {layer_class(node) for node in quantised_nodes(model)} == set(order[:2])
    assert record.precision == "int8"
    assert precision_of(model) == record


def test_what_is_never_accepted_stays_in_fp16(given, rows):
    model, record = quantise_as_much_as(lambda _: False, given=given, order=[row.layer_class for row in rows[1:]])
    assert record.precision == "fp16"
    assert not quantised_nodes(model)


def test_command_prints_the_table(graph, good, tmp_path, capsys):
    path = tmp_path / "plate.onnx"
    onnx.save(graph, path)
    assert main(["sensitivity", str(path), "--data", str(good), "--count", "2", "--images", "2"]) == 0
    out = capsys.readouterr().out
    assert "scales from 2 good pictures, seed 0" in out
    for name in ("none", "MLP", "neck", "feature aggregation"):
        assert f"\n{name} " in out


def test_command_refuses_what_it_cannot_use(graph, good, tmp_path, capsys):
    half, cut = tmp_path / "half.onnx", tmp_path / "cut.onnx"
    onnx.save(with_precision(graph, "fp16")[0], half)
    cut.write_bytes(graph.SerializeToString()[:1000])
    empty = tmp_path / "empty"
    empty.mkdir()
    float_path = tmp_path / "float.onnx"
    onnx.save(graph, float_path)
    for source, data, said in (
        (half, good, "is in fp16 already"),
        (cut, good, "truncated or not an ONNX file"),
        (float_path, empty, "has no"),
        (float_path, tmp_path / "nowhere", "nowhere"),
    ):
        assert main(["sensitivity", str(source), "--data", str(data)]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert said in line


@pytest.mark.parametrize(
    ("fp16", "int8", "expected"),
    [
        (BuildCost(319, 3_042_000_000), BuildCost(395, 4_486_000_000), False),
        (BuildCost(319, 3_042_000_000), BuildCost(339, 2_989_000_000), False),  # 1.7 % is within any doubt
        (BuildCost(319, 3_042_000_000), BuildCost(339, 2_000_000_000), True),
        (BuildCost(319, 3_042_000_000, 4.3), BuildCost(339, 3_100_000_000, 3.0), True),
    ],
)
def test_int8_is_called_faster_only_where_it_moves_less(fp16, int8, expected):
    gain = expected_gain(fp16, int8)
    assert gain.expected == expected
    assert ("is not expected to be faster" in gain.sentence) != expected
    assert f"it moves {int8.bytes_moved / 1e6:.0f} MB in {int8.kernels} kernels" in gain.sentence
