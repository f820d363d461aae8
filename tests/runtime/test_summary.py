"""What a run amounted to, for people."""

from __future__ import annotations

import pytest

from runtime.summary import RunSummary


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, ["1 alarm", "1 frame dark", "1 time", "1 frame not"]), (2, ["2 alarms", "2 frames dark"])],
)
def test_one_of_a_kind_is_told_in_the_singular(count: int, expected: list[str]) -> None:
    summary = RunSummary(
        frames=9,
        anomalies=2,
        alarms=count,
        parts=1,
        faults={"dark": count},
        events={},
        dropped=0,
        skipped=0,
        reconnects=count,
        output_drops={"a.csv": count},
        output_failures={},
        duration_s=1.0,
        frames_per_second=9.0,
        latency={},
        truth=None,
    )
    said = "\n".join(summary.lines())
    assert all(f" {words}" in said for words in expected)
    assert not any(f"{words}s" in said for words in expected if count == 1)
