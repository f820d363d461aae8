"""The names of TensorRT that building and running plans use: are they there, in each version and product?

`tensorrt_api/names.json` was written by hand. `bindings.json` and `stubs.json` were recorded from published packages by
the scripts beside them; TensorRT-RTX is installed.
"""

from __future__ import annotations

import enum
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx

import export.tensorrt.memory
import export.tensorrt.portability
import export.tensorrt.product
import runtime.backends.kernel_cache
import runtime.backends.plan
import runtime.backends.tensorrt
import stlm_edge.tensorrt
from stlm_edge.errors import EngineError
from stlm_edge.tensorrt import FEATURES, require_features

from .api_names import dotted, find, missing
from .fake_tensorrt import BINDINGS, fake_tensorrt

API = Path(__file__).parent / "tensorrt_api"
NAMES: dict[str, dict[str, list[str]]] = json.loads((API / "names.json").read_text())
STUBS: dict[str, str] = json.loads((API / "stubs.json").read_text())["declarations"]
LATER = "tensorrt from 10.9 on"
TOO_OLD = ["8.6.1", "10.0.1"]
USED = [version for version in BINDINGS if version not in TOO_OLD]

CALLS = {
    "Builder.build_serialized_network": 2,
    "Builder.create_builder_config": 0,
    "Builder.create_network": 1,
    "Builder.create_optimization_profile": 0,
    "IBuilderConfig.add_optimization_profile": 1,
    "IBuilderConfig.clear_flag": 1,
    "IBuilderConfig.create_timing_cache": 1,
    "IBuilderConfig.get_timing_cache": 0,
    "IBuilderConfig.set_memory_pool_limit": 2,
    "IBuilderConfig.set_timing_cache": 2,
    "ICudaEngine.create_execution_context": 1,
    "ICudaEngine.get_tensor_dtype": 1,
    "ICudaEngine.get_tensor_mode": 1,
    "ICudaEngine.get_tensor_name": 1,
    "ICudaEngine.get_tensor_shape": 1,
    "IExecutionContext.execute_async_v3": 1,
    "IExecutionContext.set_device_memory": 2,
    "IExecutionContext.set_input_shape": 2,
    "IExecutionContext.set_tensor_address": 2,
    "ILogger.log": 2,
    "IOptimizationProfile.set_shape": 4,
    "IProgressMonitor.phase_finish": 1,
    "IProgressMonitor.phase_start": 3,
    "IProgressMonitor.step_complete": 2,
    "ITimingCache.serialize": 0,
    "OnnxParser.get_error": 1,
    "OnnxParser.parse": 1,
    "ParserError.desc": 0,
    "ParserError.node_name": 0,
    "Runtime.deserialize_cuda_engine": 1,
}
"""How many arguments each function is called with, or is given by TensorRT."""


def test_installed_tensorrt_rtx_has_what_is_used():
    assert missing(tensorrt_rtx, dotted(NAMES, "always", "tensorrt-rtx")) == []
    require_features("tensorrt-rtx", tensorrt_rtx)


def test_stubs_declare_what_is_used():
    assert set(dotted(NAMES, "always", "tensorrt", LATER)) - set(STUBS) == set()


def test_functions_take_the_arguments_they_are_called_with():
    for name, given in CALLS.items():
        arguments = re.fullmatch(r"def \w+\(self(?:, )?(.*)\) -> .*", STUBS[name])
        assert arguments is not None, name
        declared = [argument for argument in re.split(r", (?=\w+:)", arguments[1]) if argument]
        required = [argument for argument in declared if " = " not in argument]
        assert len(required) <= given <= len(declared), name


@pytest.mark.parametrize("version", USED)
def test_published_bindings_of_every_version_have_what_is_always_used(version):
    used = {part for name in dotted(NAMES, "always", "tensorrt") for part in name.split(".")}
    assert used - set(BINDINGS[version]) == set()


def test_versions_from_jetpack_6_0_to_the_latest_are_recorded():
    assert list(BINDINGS) == ["8.6.1", "10.0.1", "10.3.0", "10.9.0", "10.13.0", "11.4.0"]


@pytest.mark.parametrize(
    ("version", "lacks"),
    [
        ("8.6.1", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"),
        ("10.0.1", "ICudaEngine.device_memory_size_v2"),
    ],
)
def test_version_that_lacks_something_is_refused_by_its_number(version, lacks):
    with pytest.raises(EngineError) as caught:
        require_features("tensorrt", fake_tensorrt(version))
    assert f"found TensorRT {version}, which has no {lacks}, expected 10.3 or later; " in str(caught.value)


@pytest.mark.parametrize("version", USED)
def test_later_version_is_not_refused(version):
    require_features("tensorrt", fake_tensorrt(version))


@pytest.mark.parametrize("version", TOO_OLD)
def test_nothing_else_that_is_used_came_after_the_features_that_are_looked_for(version):
    """Whatever a version lacks comes with one of `FEATURES`, or belongs to what only that one gives."""
    lacking = {name for name in dotted(NAMES, "always") if name.rpartition(".")[2] not in BINDINGS[version]}
    lookups = {part for feature in FEATURES for part in (feature, feature.partition(".")[0])}
    theirs = {name for name in lacking if name in lookups or name.partition(".")[0] in lookups}
    # What an error of the parser says, and that a build tells of its progress, came with 9.1 as well.
    assert lacking - theirs <= {"ParserError.node_name", "IBuilderConfig.progress_monitor"}


def test_narrower_compatibility_came_with_10_9():
    names = {name.split(".")[-1] for name in dotted(NAMES, LATER)}
    assert [version for version in BINDINGS if names <= set(BINDINGS[version])] == ["10.9.0", "10.13.0", "11.4.0"]


@pytest.mark.parametrize("name", ["ComputeCapability", "CudaGraphStrategy", "get_engine_validity"])
def test_what_tells_tensorrt_rtx_is_in_no_version_of_tensorrt(name):
    assert name in {each.split(".")[-1] for each in dotted(NAMES, "tensorrt-rtx")}
    assert all(name not in names for names in BINDINGS.values())


def test_tensorrt_11_has_lost_the_flags_that_precision_does_not_need():
    assert {"FP16", "EXPLICIT_BATCH", "platform_has_fast_fp16"} <= set(BINDINGS["10.3.0"])
    assert not {"FP16", "EXPLICIT_BATCH", "platform_has_fast_fp16"} & set(BINDINGS["11.4.0"])


def test_timing_cache_of_tensorrt_rtx_says_that_it_does_nothing():
    """It has the functions, so it is the one difference that no name tells."""

    class Logger(tensorrt_rtx.ILogger):
        def log(self, severity: Any, message: str) -> None:
            pass

    builder = tensorrt_rtx.Builder(logger := Logger())
    config = builder.create_builder_config()
    with pytest.warns(DeprecationWarning, match="no-ops"):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    del logger


def test_every_recorded_name_is_used():
    modules = (
        export.tensorrt.memory,
        export.tensorrt.portability,
        export.tensorrt.product,
        runtime.backends.kernel_cache,
        runtime.backends.plan,
        runtime.backends.tensorrt,
        stlm_edge.tensorrt,
    )
    used = {word for module in modules for word in re.findall(r"\w+", Path(str(module.__file__)).read_text())}
    constructed = {"ERROR", "INFO", "VERBOSE"}  # severities arrive with a message and are passed on
    types = {"DataType", "IRuntimeConfig"}
    assert {name.split(".")[-1] for name in dotted(NAMES, *NAMES)} - used - constructed - types == set()


EXCESS = {"Severity", "FP16", "INT8", "EXPLICIT_BATCH", "NONE", "OUTPUT", "HALF", "STATIC", "DISABLED", "VALID"}
EXCESS |= {"SM80", "SM86", "SM89", "is_broken", "content"}
"""What the fakes have beyond what is used."""
OF_RTX_TOO = {"create_timing_cache", "get_timing_cache", "set_timing_cache", "ITimingCache"}
DIAGNOSTICS = {"VERSION_MISMATCH", "UNSUPPORTED_CC", "OLD_CUDA_DRIVER"}


@pytest.mark.parametrize("version", [*BINDINGS, "1.7.1.116"])
def test_fake_has_the_recorded_names_and_no_other(version):
    """So whatever is used without being recorded fails with the fake."""
    rtx = version.startswith("1.")
    fake, recorded = fake_tensorrt(version), dotted(NAMES, "always", "tensorrt-rtx" if rtx else "tensorrt")
    if not rtx and "SAME_COMPUTE_CAPABILITY" in BINDINGS[version]:
        recorded += dotted(NAMES, LATER)
    expected = [name for name in recorded if rtx or set(name.split(".")) <= set(BINDINGS[version])]
    assert [name for name in expected if not find(fake, name)] == []
    top = {name.partition(".")[0] for name in recorded} | EXCESS | (OF_RTX_TOO if rtx else set())
    assert {name for name in vars(fake) if not name.startswith("_")} - top == set()
    for owner in {name.rpartition(".")[0] for name in expected} - {"", "ILogger.Severity"}:
        kind = getattr(fake, owner)
        known = {name.rpartition(".")[2] for name in recorded if name.rpartition(".")[0] == owner}
        known |= EXCESS | (OF_RTX_TOO | DIAGNOSTICS if rtx else set())
        names = kind.__members__ if issubclass(kind, enum.Enum) else vars(kind)
        assert {name for name in names if not name.startswith("_")} - known == set(), owner


def test_recorder_finds_names_in_a_library_and_misses_what_is_not_there(tmp_path):
    spec = importlib.util.spec_from_file_location("record_bindings", API / "record_bindings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "tensorrt_bindings").mkdir()
    noise = np.random.default_rng(0).bytes(1000)
    (tmp_path / "tensorrt_bindings" / "tensorrt.so").write_bytes(noise + b"a parse\0create_networks\0" + noise)
    (tmp_path / "names.json").write_text((API / "names.json").read_text())
    module.main(tmp_path, f"1.0={tmp_path}")
    assert json.loads((tmp_path / "bindings.json").read_text()) == {"1.0": ["parse"]}
