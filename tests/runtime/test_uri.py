from __future__ import annotations

import pytest

from runtime.uri import Option, allowed, choice, format_bytes, parse_options, size_in_bytes, whole_number

KNOWN = {
    "rate": Option(allowed(float, lambda value: value > 0), "a number above 0"),
    "keep": whole_number(least=1),
    "only": choice("all", "anomalies"),
    "limit": size_in_bytes(least=1000),
}


def test_options_are_parsed() -> None:
    found = parse_options("rate=2.5&keep=3&only=anomalies&limit=1.5gb", KNOWN)
    assert found == {"rate": 2.5, "keep": 3, "only": "anomalies", "limit": 1_500_000_000}
    assert parse_options("", KNOWN) == {}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("rate", "'rate' does not consist of NAME=VALUE joined by &"),
        ("speed=1", "there is no option 'speed'"),
        ("keep=1&keep=2", "keep is given twice"),
        ("rate=nan", "rate is 'nan', expected a number above 0"),
        ("keep=0", "keep is '0', expected a whole number from 1 on"),
        ("only=", "only is '', expected all or anomalies"),
        ("limit=100", "limit is '100', expected a size from 1KB on, with its unit, as in 100MB or 5GB"),
        ("limit=0.5KB", "limit is '0.5KB', expected a size from 1KB"),
    ],
)
def test_option_that_does_not_fit_is_told_of(query: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}"):
        parse_options(query, KNOWN)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0KB"), (1500, "1.5KB"), (10**8, "100MB"), (5 * 10**9, "5GB"), (3 * 10**15, "3000TB")]
)
def test_size_is_told_in_the_largest_unit_of_which_there_is_one(size: int, text: str) -> None:
    assert format_bytes(size) == text
