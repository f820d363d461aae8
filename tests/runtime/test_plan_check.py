"""Plans that do not fit a machine, and files beside a plan that do not belong to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from runtime.backends import open_engine
from runtime.plan_check import Machine, check_plan, on_another_gpu
from stlm_edge import EngineRecord, Sidecar
from stlm_edge.errors import EngineError, SpecError
from stlm_edge.files import sha256
from stlm_edge.sidecar import BuildMachine
from stlm_edge.tensorrt import Gpu

from .conftest import SPEC

AGX_ORIN = Gpu("Orin", "sm87", multiprocessors=16)
ORIN = Machine("tensorrt", "10.3.0", AGX_ORIN)
DESKTOP = Machine("tensorrt", "10.13.0", Gpu("NVIDIA GeForce RTX 3090", "sm86", multiprocessors=82))
RTX = Machine("tensorrt-rtx", "1.7.1", Gpu("NVIDIA GeForce RTX 4090", "sm89"))


def sidecar(*, product: str = "tensorrt", version: str = "10.3.0", device: str = "sm87", digest: str = "") -> Sidecar:
    record = EngineRecord(product=product, version=version, device=device, precision="fp16", engine_sha256=digest)
    return Sidecar(spec=SPEC, engine=record)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plate.plan"
    path.write_bytes(b"ptrt and more")
    sidecar(digest=sha256(path)).write(path)
    return path


@pytest.mark.parametrize(
    ("built", "machine"),
    [
        (sidecar(), ORIN),
        (sidecar(product="tensorrt-rtx", version="1.7.1", device="sm86,sm89"), RTX),
        (sidecar(product="tensorrt-rtx", version="1.7.1", device="sm80+"), RTX),
        (
            sidecar(product="tensorrt-rtx", version="1.7.1", device="sm80+"),
            Machine("tensorrt-rtx", "1.7.1", Gpu("NVIDIA GeForce RTX 5090", "sm120")),
        ),
    ],
)
def test_plan_of_the_same_version_and_gpu_passes(built: Sidecar, machine: Machine) -> None:
    check_plan(Path("plate.plan"), built, machine)


@pytest.mark.parametrize(
    ("built", "machine", "message"),
    [
        (
            sidecar(),
            DESKTOP,
            "plate.plan was built with TensorRT 10.3.0 for sm87, this machine has TensorRT 10.13.0 on sm86; "
            "rebuild: stlm export plate.plan.onnx -o plate.plan",
        ),
        (
            sidecar(),
            Machine("tensorrt", "10.3.0", Gpu("NVIDIA GeForce RTX 3090", "sm86")),
            "plate.plan was built with TensorRT 10.3.0 for sm87, this machine has TensorRT 10.3.0 on sm86; "
            "rebuild: stlm export plate.plan.onnx -o plate.plan",
        ),
        (
            sidecar(version="1.7.1"),
            RTX,
            "plate.plan was built with TensorRT 1.7.1 for sm87, this machine has TensorRT-RTX 1.7.1 on sm89; "
            "rebuild: stlm export plate.plan.onnx -o plate.plan --product tensorrt-rtx --target sm89",
        ),
        (
            sidecar(product="tensorrt-rtx", version="1.7.1", device="sm80+"),
            Machine("tensorrt-rtx", "1.7.1", Gpu("Tesla T4", "sm75")),
            "plate.plan was built with TensorRT-RTX 1.7.1 for sm80+, this machine has TensorRT-RTX 1.7.1 on sm75; "
            "rebuild: stlm export plate.plan.onnx -o plate.plan --product tensorrt-rtx --target sm75",
        ),
        (
            sidecar(),
            Machine("tensorrt", "10.3.0", None),
            "plate.plan was built with TensorRT 10.3.0 for sm87, this machine has TensorRT 10.3.0 and no NVIDIA GPU; "
            "run the plan on a machine with one, or an .onnx file on the CPU",
        ),
        (
            sidecar(product="onnx", device="any"),
            ORIN,
            "the sidecar of plate.plan says that it is an engine of onnx, expected one of TensorRT or TensorRT-RTX; "
            "build it again: stlm export plate.plan.onnx -o plate.plan",
        ),
    ],
    ids=["version", "gpu", "product", "older than portable", "no gpu", "sidecar of another engine"],
)
def test_plan_that_does_not_fit_is_refused_with_the_command_that_helps(
    built: Sidecar, machine: Machine, message: str
) -> None:
    with pytest.raises(EngineError) as caught:
        check_plan(Path("plate.plan"), built, machine)
    assert str(caught.value) == message


def built_on(architecture: str, gpu: str, multiprocessors: int, **changes: Any) -> Sidecar:
    whole = sidecar(device="sm86" if "RTX" in gpu else "sm87")
    machine = BuildMachine(architecture, gpu, multiprocessors)
    return dataclasses.replace(whole, engine=dataclasses.replace(whole.engine, built_on=machine, **changes))


def test_plan_from_another_kind_of_processor_is_refused_by_its_record() -> None:
    """TensorRT says "Platform specific tag mismatch detected" of it, see `tests/gpu_errors.json`."""
    jetson = dataclasses.replace(ORIN, architecture="aarch64")
    check_plan(Path("plate.plan"), built_on("aarch64", "Orin", 16), jetson)
    check_plan(Path("plate.plan"), sidecar(), jetson)  # from before this was recorded
    with pytest.raises(EngineError) as caught:
        check_plan(Path("plate.plan"), built_on("x86_64", "Orin", 16), jetson)
    assert str(caught.value) == (
        "plate.plan was built with TensorRT 10.3.0 for sm87 on x86_64, this machine has TensorRT 10.3.0 on sm87, "
        "aarch64; rebuild: stlm export plate.plan.onnx -o plate.plan"
    )


@pytest.mark.parametrize(
    ("record", "gpu", "words"),
    [
        (built_on("x86_64", "Orin", 16), AGX_ORIN, None),
        (
            built_on("x86_64", "Orin", 16),
            Gpu("Orin", "sm87", multiprocessors=8),
            "plate.plan was built on Orin with 16 multiprocessors, this machine has Orin with 8 multiprocessors: there "
            "it may be slow or fail; rebuild: stlm export plate.plan.onnx -o plate.plan",
        ),
        (
            built_on("x86_64", "NVIDIA GeForce RTX 3090", 82),
            Gpu("NVIDIA GeForce RTX 3050", "sm86", multiprocessors=20),
            "was built on NVIDIA GeForce RTX 3090 with 82 multiprocessors, this machine has NVIDIA GeForce RTX 3050",
        ),
        (built_on("x86_64", "NVIDIA GeForce RTX 3090", 82, portability="every"), Gpu("other", "sm86", 20), None),
        (sidecar(), AGX_ORIN, None),
    ],
    ids=["same", "AGX Orin's plan on an Orin NX", "desktop cards", "portable", "older record"],
)
def test_plan_from_another_gpu_of_its_compute_capability_is_warned_of(
    record: Sidecar, gpu: Gpu, words: str | None
) -> None:
    machine = Machine("tensorrt", "10.3.0", gpu, architecture="x86_64")
    check_plan(Path("plate.plan"), record, machine)
    warning = on_another_gpu(Path("plate.plan"), record, machine)
    assert warning is None if words is None else words in str(warning)


def test_portable_plan_is_rebuilt_as_a_portable_one() -> None:
    record = built_on("x86_64", "NVIDIA GeForce RTX 3090", 82, portability="every GPU")
    with pytest.raises(EngineError, match=r"rebuild: stlm export plate\.plan\.onnx -o plate\.plan --portable$"):
        check_plan(Path("plate.plan"), record, dataclasses.replace(DESKTOP, architecture="x86_64"))


def test_portable_plan_is_rebuilt_as_any_other_where_none_can_be_portable() -> None:
    ampere = dataclasses.replace(sidecar(device="sm80+").engine, portability="every GPU from 8.0 on")
    turing = Machine("tensorrt", "10.3.0", Gpu("Tesla T4", "sm75"))
    with pytest.raises(EngineError, match=r"rebuild: stlm export plate\.plan\.onnx -o plate\.plan$"):
        check_plan(Path("plate.plan"), dataclasses.replace(sidecar(), engine=ampere), turing)


def test_path_with_a_space_is_quoted_in_the_command() -> None:
    with pytest.raises(EngineError, match=r"export 'my part/plate\.plan\.onnx' -o 'my part/plate\.plan'"):
        check_plan(Path("my part/plate.plan"), sidecar(), DESKTOP)


@pytest.mark.parametrize("change", ["truncated", "flipped"])
def test_damaged_plan_is_refused_with_the_command_that_builds_it_again(plan: Path, change: str) -> None:
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-1] if change == "truncated" else bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(EngineError, match=r"the engine was changed.*stlm export \S+plate\.plan\.onnx -o "):
        open_engine(plan)


def test_edited_sidecar_of_a_plan(plan: Path) -> None:
    path = Sidecar.path_for(plan)
    path.write_text(path.read_text().replace('"sm87"', '"sm86"'))
    with pytest.raises(SpecError, match="edited or damaged"):
        open_engine(plan)


def test_missing_sidecar_of_a_plan(plan: Path) -> None:
    Sidecar.path_for(plan).unlink()
    with pytest.raises(SpecError, match=r"has no plate\.plan\.json.*stlm export \S+plate\.plan\.onnx -o "):
        open_engine(plan)


def test_missing_plan(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is not a file"):
        open_engine(tmp_path / "plate.plan")
