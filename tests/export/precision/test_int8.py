"""INT8 by class, with scales from good pictures."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from export.graph.graph import OPSET, opset_of
from export.graph.parts import layer_class
from export.precision.apply import INT8_CLASSES, load_pictures
from export.precision.int8 import calibrate, quantised_nodes, quantised_only
from export.precision.rounded import rounded
from stlm_edge.errors import EngineError


def test_calibration_keeps_what_the_graph_is(model, given):
    quantised = given.quantised
    assert opset_of(quantised) == OPSET
    for found, wanted in ((quantised.graph.input, model.graph.input), (quantised.graph.output, model.graph.output)):
        assert [(value.name, value.type) for value in found] == [(value.name, value.type) for value in wanted]
    names = {node.name for node in quantised.graph.node}
    assert {node.name for node in model.graph.node} <= names


def test_nothing_is_said_while_all_goes_well(graph, good, given, capfd):
    capfd.readouterr()
    calibrate(graph.model, load_pictures(good, spec=graph.spec, count=1)[0], kept=given.kept)
    assert capfd.readouterr() == ("", "")


def test_only_the_classes_that_were_asked_for_are_quantised(given):
    quantised = given.with_classes(["neck", "MLP"])
    record = quantised.record
    assert {layer_class(node) for node in quantised_nodes(quantised.model)} == {"neck", "MLP"}
    assert "int8" in record.by_class["neck"]
    assert "int8" in record.by_class["MLP"]
    assert sum("int8" in precision for precision in record.by_class.values()) == 2
    assert record.calibration == given.calibration


def test_both_streams_are_treated_alike(given):
    names = {node.name for node in quantised_nodes(given.with_classes(INT8_CLASSES).model)}
    plain = {name.removeprefix("plain.") for name in names if name.startswith("plain.")}
    assert plain == {name.removeprefix("denoising.") for name in names if name.startswith("denoising.")}
    assert plain


def test_weights_are_stored_in_int8_with_scales_in_half(given):
    model = given.with_classes(INT8_CLASSES).model
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in quantised_nodes(model):
        data, weights = (makers[name] for name in node.input[:2])
        stored = tensors[weights.input[0]]
        assert stored.data_type == TensorProto.INT8
        assert np.abs(numpy_helper.to_array(stored).astype(int)).max() == 127
        for dequantise in (data, weights):
            scale = tensors[dequantise.input[1]]
            assert scale.data_type == TensorProto.FLOAT16
            assert numpy_helper.to_array(scale).min() > 0


def test_shortcuts_are_not_rounded_to_int8(given):
    """ModelOpt hands the rounded values of a layer's input also to the sum at the end of its shortcut."""

    def readers(model: onnx.ModelProto) -> set[str]:
        dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
        return {node.op_type for node in model.graph.node if dequantised.intersection(node.input)}

    assert "Add" in readers(given.quantised), "ModelOpt has changed, and the detour is not needed any more"
    assert readers(quantised_only(given.quantised, INT8_CLASSES)) == {"Conv", "MatMul"}


def test_no_class_is_fp16(given, pictures, run):
    """What remains after all quantisation is taken out answers to the bit as what never had any."""
    without, half = given.with_classes([]).model, given.in_half().model
    for found, wanted in zip(run(rounded(without), pictures[0]), run(rounded(half), pictures[0]), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_int8_answers_nearly_alike(model, given, pictures, run):
    quantised = rounded(given.with_classes(INT8_CLASSES).model)
    wanted, found = (np.concatenate([run(m, picture)[0] for picture in pictures]) for m in (model, quantised))
    assert np.abs(found - wanted).max() > 1e-4
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9


def test_tensorrt_builds_int8_with_fused_attentions(given, build_log):
    quantised = given.with_classes(INT8_CLASSES)
    log = build_log(quantised.model, quantised.spec)
    built = [line for message in log for line in message.splitlines() if re.search(r"LayerType: \w", line)]
    assert sum("Datatype: Int8" in line for line in built) >= len(quantised_nodes(quantised.model))
    assert [line for line in built if "_gemm_mha" in line]


def test_what_model_opt_cannot_do_is_one_line(graph, good, given):
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph.model)
    wrong.graph.node[5].op_type = "NoSuchOperation"
    with pytest.raises(
        EngineError, match=r"ModelOpt cannot quantise the graph \(.*NoSuchOperation.*\); use --precision fp16"
    ):
        calibrate(wrong, load_pictures(good, spec=graph.spec, count=1)[0], kept=given.kept)
