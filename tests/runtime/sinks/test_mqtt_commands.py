"""What a message on a command topic is taken for."""

from __future__ import annotations

import pytest

pytest.importorskip("paho.mqtt.client")

from runtime.sinks.mqtt import _text_of
from stlm_edge.errors import ControlError


@pytest.mark.parametrize(
    "payload", ["[1]", '"A-17"', "null", "true", "1.5", "-3", "1e3", '["part_id"]', "[" * 90 + "]" * 90]
)
def test_json_that_is_not_what_is_expected_is_no_name(payload: str) -> None:
    with pytest.raises(ControlError) as caught:
        _text_of(payload.encode(), key="part_id")
    assert "found the JSON" in str(caught.value) and 'expected a text as it is, or {"part_id": "…"}' in str(
        caught.value
    )
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["A-17", "4711", "007", "[A", "A]", '"', "nul", "NaN", "1.2.3", "[" * 99])
def test_plain_text_is_a_name(name: str) -> None:
    assert _text_of(f" {name}\n".encode(), key="part_id") == name
    assert _text_of(b'{"part_id": "[1]"}', key="part_id") == "[1]"


@pytest.mark.parametrize("payload", ["", " ", "{}", '{"part_id": null}'])
def test_nothing_is_no_name(payload: str) -> None:
    assert _text_of(payload.encode(), key="part_id") is None
