"""The names of TensorRT that a build uses: are they there, in each version and product that it is to run with?

`tensorrt_api/names.json` was written by hand. `bindings.json` and `stubs.json` were recorded from published packages by
the scripts beside them; TensorRT-RTX is installed.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx

import export.tensorrt.product
import stlm_edge.tensorrt

from ...api_names import dotted, missing
from .fake_tensorrt import fake_tensorrt

API = Path(__file__).parent / "tensorrt_api"
NAMES: dict[str, dict[str, list[str]]] = json.loads((API / "names.json").read_text())
BINDINGS: dict[str, list[str]] = json.loads((API / "bindings.json").read_text())
STUBS: dict[str, str] = json.loads((API / "stubs.json").read_text())["declarations"]

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
}
"""How many arguments each function is called with, or is given by TensorRT."""


def test_installed_tensorrt_rtx_has_what_is_used():
    assert missing(tensorrt_rtx, dotted(NAMES, "always", "tensorrt-rtx")) == []


def test_stubs_declare_what_is_used():
    assert set(dotted(NAMES, "always", "tensorrt")) - set(STUBS) == set()


def test_functions_take_the_arguments_they_are_called_with():
    for name, given in CALLS.items():
        arguments = re.fullmatch(r"def \w+\(self(?:, )?(.*)\) -> .*", STUBS[name])
        assert arguments is not None, name
        declared = [argument for argument in re.split(r", (?=\w+:)", arguments[1]) if argument]
        required = [argument for argument in declared if " = " not in argument]
        assert len(required) <= given <= len(declared), name


@pytest.mark.parametrize("version", BINDINGS)
def test_published_bindings_of_every_version_have_what_is_always_used(version):
    used = {part for name in dotted(NAMES, "always", "tensorrt") for part in name.split(".")}
    assert used - set(BINDINGS[version]) == set()


def test_versions_from_jetpack_6_to_the_latest_are_recorded():
    assert list(BINDINGS) == ["10.3.0", "10.13.0", "11.4.0"]


@pytest.mark.parametrize("version", BINDINGS)
def test_what_is_looked_for_first_is_really_missing_in_tensorrt(version):
    assert {name.split(".")[-1] for name in dotted(NAMES, "tensorrt-rtx")} & set(BINDINGS[version]) == set()


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
    modules = (export.tensorrt.product, stlm_edge.tensorrt)
    used = {word for module in modules for word in re.findall(r"\w+", Path(module.__file__).read_text())}
    constructed = {"ERROR", "INFO", "VERBOSE"}  # severities arrive with a message and are passed on
    assert {name.split(".")[-1] for name in dotted(NAMES, *NAMES)} - used - constructed == set()


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_fake_has_the_recorded_names_and_no_other(version):
    """So whatever the module uses without being recorded fails with the fake."""
    fake, recorded = fake_tensorrt(version), dotted(NAMES, "always", "tensorrt")
    assert missing(fake, recorded) == []
    for owner in {name.rpartition(".")[0] for name in recorded} - {"", "ILogger.Severity"}:
        kind = getattr(fake, owner)
        known = {name.rpartition(".")[2] for name in recorded if name.rpartition(".")[0] == owner}
        known |= {"Severity", "FP16", "INT8", "EXPLICIT_BATCH"}
        public = set(getattr(kind, "__members__", None) or vars(kind))
        assert {name for name in public if not name.startswith("_")} - known == set()


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
