"""The model specification and the sidecar of an engine."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stlm_edge.errors import SpecError
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.spec import SCHEMA_VERSION, SIZE_MULTIPLE, ModelSpec, Threshold

SPEC = ModelSpec(
    category="plate",
    architecture="stlm-tiny",
    input_size=(256, 320),
    map_size=(64, 80),
    weights_sha256="0" * 64,
    threshold=Threshold(
        value=0.25, method="quantile", images=39, false_alarm_rate=0.05, false_alarm_interval=(0.006, 0.135)
    ),
    normal_score_range=(0.01, 0.2),
    normal_score_deciles=(0.01, 0.02, 0.03, 0.04, 0.05, 0.05, 0.06, 0.07, 0.08, 0.09, 0.2),
    normal_score_images=39,
)
ENGINE = EngineRecord(
    product="onnx",
    version="1.19",
    device="any",
    precision="float32",
    engine_sha256="1" * 64,
)


def altered(**changes: Any) -> str:
    return json.dumps({**json.loads(SPEC.to_json()), **changes})


def threshold_of(**changes: Any) -> dict[str, Any]:
    return {**json.loads(SPEC.to_json())["threshold"], **changes}


def test_specification_survives_json() -> None:
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC


def test_specification_without_a_threshold_survives_json() -> None:
    bare = dataclasses.replace(SPEC, threshold=None, normal_score_range=None)
    assert ModelSpec.from_json(bare.to_json()) == bare


def test_unknown_key_is_refused() -> None:
    with pytest.raises(SpecError, match="colour"):
        ModelSpec.from_json(altered(colour="red"))


def test_missing_key_is_refused() -> None:
    data = json.loads(SPEC.to_json())
    del data["top_k"]
    with pytest.raises(SpecError, match="top_k"):
        ModelSpec.from_json(json.dumps(data))


def test_second_threshold_survives_json_and_records_from_before_it_read() -> None:
    chosen = dataclasses.replace(
        SPEC.require_threshold(), parts=12, value_interval=(0.2, 0.3), modelled=True, unclear=0.15, unclear_rate=0.1
    )
    both = dataclasses.replace(SPEC, threshold=chosen)
    assert ModelSpec.from_json(both.to_json()) == both
    data = json.loads(SPEC.to_json())
    for name in ("parts", "value_interval", "modelled", "unclear", "unclear_rate"):
        del data["threshold"][name]
    assert ModelSpec.from_json(json.dumps(data)) == SPEC


def test_record_from_before_the_interval_still_reads() -> None:
    data = json.loads(SPEC.to_json())
    del data["threshold"]["false_alarm_interval"]
    read = ModelSpec.from_json(json.dumps(data))
    assert read.require_threshold() == dataclasses.replace(SPEC.require_threshold(), false_alarm_interval=None)
    del data["threshold"]["false_alarm_rate"]
    with pytest.raises(SpecError, match=r"threshold lacks false_alarm_rate; "):
        ModelSpec.from_json(json.dumps(data))


def test_record_from_before_the_highest_score_takes_what_any_network_can_reach() -> None:
    data = json.loads(SPEC.to_json())
    del data["highest_score"]
    data["threshold"]["value"] = 4
    assert ModelSpec.from_json(json.dumps(data)).highest_score is None


@pytest.mark.parametrize("threshold", [0.0, float(np.nextafter(np.float32(0), np.float32(1))), 0.5, 1.0])
def test_threshold_that_a_score_can_reach_is_taken(threshold: float) -> None:
    dataclasses.replace(SPEC, highest_score=1.0).require_reachable(threshold)


@pytest.mark.parametrize("threshold", [45.0, 1.0001, -1.0, -1e-9, 1e-320, 1e308, math.inf, -math.inf, math.nan])
def test_threshold_that_no_score_or_every_score_reaches_is_refused(threshold: float) -> None:
    with pytest.raises(SpecError, match=r"scores lie between 0 and 1, .*; give another --threshold$"):
        dataclasses.replace(SPEC, highest_score=1.0).require_reachable(threshold)


def test_record_from_before_the_deciles_still_reads() -> None:
    data = json.loads(SPEC.to_json())
    del data["normal_score_deciles"], data["normal_score_images"]
    read = ModelSpec.from_json(json.dumps(data))
    assert read == dataclasses.replace(SPEC, normal_score_deciles=None, normal_score_images=None)


def test_unknown_key_of_the_threshold_is_refused() -> None:
    data = json.loads(SPEC.to_json())
    data["threshold"]["valu"] = 1
    with pytest.raises(SpecError, match=r"ModelSpec\.threshold has unknown keys \['valu'\]; "):
        ModelSpec.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, f"schema version {SCHEMA_VERSION + 1}, this toolkit reads"),
        ({"resize": "area"}, "resize 'area'"),
        ({"channel_order": "RGB"}, "channel_order 'RGB'"),
        ({"input_size": [256, 100]}, "256 x 100"),
        ({"input_size": [0, SIZE_MULTIPLE]}, f"0 x {SIZE_MULTIPLE}"),
        ({"input_size": [256]}, r"input_size is \[256\], expected a list of 2"),
        ({"input_size": [32 * 10**6, 32]}, "expected at most"),
        ({"map_size": [0, 64]}, "map_size is"),
        ({"frame_size": [2**31, 2**31]}, "frame_size is"),
        ({"frame_size": [1, -1]}, "frame_size is"),
        ({"pixel_mean": [1.0, 2.0]}, "expected a list of 3"),
        ({"pixel_mean": [300, 0, 0]}, "expected 0 to 255"),
        ({"pixel_std": [0, 1, 1]}, "expected 0.001 to 1000"),
        ({"max_batch": 10**9}, "max_batch is 1000000000, expected 1 to 4096"),
        ({"full_map": 1}, "expected true or false"),
        ({"normal_score_images": 0}, "expected at least 1"),
        ({"normal_score_range": [0.5, 0.1]}, "expected 2 scores that rise"),
        ({"normal_score_range": [45, 46]}, "expected 2 scores that rise from 0 or more to 4 or less"),
        ({"normal_score_range": [0.5, 1.5], "highest_score": 1}, "to 1 or less"),
        ({"normal_score_deciles": [-1.0] * 11}, "expected 11 scores that rise from 0 or more"),
        ({"threshold": threshold_of(false_alarm_interval=[1, 0])}, "expected it to rise"),
        ({"threshold": threshold_of(value_interval=[0.3, 0.2])}, "value_interval is 0.3 to 0.2, expected it to rise"),
        ({"threshold": threshold_of(unclear=0.25)}, "unclear is 0.25, expected a score below the threshold 0.25"),
        ({"threshold": threshold_of(unclear=-0.1)}, "everything would be anomalous; choose it again in the checkpoint"),
        ({"threshold": threshold_of(unclear_rate=2)}, "expected 0 to 1"),
        ({"threshold": threshold_of(parts=-1)}, "expected at least 0"),
        ({"normal_score_range": [0.5]}, "expected a list of 2"),
        ({"threshold": threshold_of(value=45)}, "nothing would ever be anomalous; choose it again in the checkpoint"),
        ({"threshold": threshold_of(value=1e308)}, "nothing would ever be anomalous"),
        ({"threshold": threshold_of(value=-1)}, "everything would be anomalous"),
        ({"threshold": threshold_of(value=10**400)}, "expected one of 64 bits"),
        ({"threshold": threshold_of(value=math.nan)}, "holds the number nan"),
        ({"threshold": threshold_of(images=-5)}, "images is -5, expected at least 0"),
        ({"threshold": threshold_of(method="guess")}, "expected quantile, f1 or manual"),
        ({"threshold": threshold_of(false_alarm_rate=1.5)}, "expected 0 to 1"),
        ({"threshold": threshold_of(value=1.5), "highest_score": 1}, "scores lie between 0 and 1"),
        ({"highest_score": 9}, "highest_score is 9.0, expected 1 to 4"),
        ({"top_k": 0}, "top_k is 0, expected 1 to"),
        ({"threshold": 0.5}, "threshold is a number, expected an object"),
        ({"normal_score_deciles": [0.1, 0.2]}, "expected 11 scores"),
        ({"normal_score_deciles": [0.2, *[0.1] * 10]}, "expected 11 scores that rise"),
    ],
)
def test_value_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_json(altered(**changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_text_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        ModelSpec.from_json(text)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_threshold_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(SpecError, match="finite"):
        Threshold(value=value, method="f1", images=1)


def test_missing_threshold_names_the_way_to_get_one() -> None:
    assert SPEC.require_threshold().value == 0.25
    with pytest.raises(SpecError, match="stlm threshold"):
        dataclasses.replace(SPEC, threshold=None).require_threshold()


def test_sidecar_survives_writing_beside_the_engine(tmp_path: Path) -> None:
    engine = tmp_path / "plate.onnx"
    Sidecar(SPEC, ENGINE).write(engine)
    assert (tmp_path / "plate.onnx.json").is_file()
    assert Sidecar.read(engine) == Sidecar(SPEC, ENGINE)


def test_missing_sidecar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no plate\.onnx\.json beside it"):
        Sidecar.read(tmp_path / "plate.onnx")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"{}", b'{"spec": {}, "engine": {}}', b'{"spec": 1, "engine": 2}']
)
def test_damaged_sidecar_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plate.onnx.json").write_bytes(content)
    with pytest.raises(SpecError, match=r"plate\.onnx\.json"):
        Sidecar.read(tmp_path / "plate.onnx")


def test_sidecar_with_a_damaged_engine_record_is_refused(tmp_path: Path) -> None:
    engine = tmp_path / "plate.onnx"
    Sidecar(SPEC, ENGINE).write(engine)
    data = json.loads(Sidecar.path_for(engine).read_text())
    del data["engine"]["product"]
    Sidecar.path_for(engine).write_text(json.dumps(data))
    with pytest.raises(SpecError, match=r"EngineRecord.*product"):
        Sidecar.read(engine)
