"""A shift as one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from runtime.part import VERDICTS
from runtime.report.charts import Periods, by_score, by_time, good_scores, heat, pareto
from runtime.report.tally import SIZES, Tally
from stlm_edge.errors import OutputError
from stlm_edge.files import require_place
from stlm_edge.html import write_page

TEMPLATE = Path(__file__).parent / "shift.html"

_SIZE_NAMES = ("below 0.01 %", "0.01 to 0.1 %", "0.1 to 1 %", "1 to 10 %", "10 % and more")


def write_shift(
    path: Path,
    events: Sequence[Path],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    title: str = "Report of a shift",
) -> Tally:
    """Make a page of what some logs tell.

    Args:
        path: of the page.
        events: files of `events.jsonl`, also set aside or packed.
        since, until: by this machine's time; None for all.
    Raises:
        DataError: if a log cannot be read or tells nothing of that time.
        OutputError: if the page cannot be written, or would be over a log.
    """
    if os.path.realpath(path) in map(os.path.realpath, events):
        raise OutputError(f"{path} is read for the report and would be written over; give another place")
    require_place(path)
    tally = Tally(since=since, until=until)
    tally.read(events)
    write_page(path, TEMPLATE, title=title, tally=tally, **_values(tally))
    return tally


def _values(tally: Tally) -> dict[str, Any]:
    """What the template shows, besides what is counted."""
    units, is_of_parts = tally.units, bool(tally.parts.hours)
    noun = "parts" if is_of_parts else "frames"
    periods = Periods(list(units.hours)) if units.hours else None
    counted = {verdict: units.verdicts[verdict] for verdict in VERDICTS}
    judged = sum(counted[verdict] for verdict in ("good", "unclear", "reject"))
    total = sum(counted.values())
    has_regions = bool(units.centres.any())
    return {
        "noun": noun,
        "units": units,
        "first": local(tally.first),
        "last": local(tally.last),
        "zone": datetime.fromisoformat(tally.last).astimezone().tzname(),
        "counted": counted,
        "total": total,
        "judged": judged,
        "good_share": counted["good"] / total if total else None,
        "good_of_judged": counted["good"] / judged if judged else None,
        "groups": sorted(units.groups.items()),
        "by_time": None if periods is None else by_time(units, periods, noun=noun),
        "by_score": by_score(tally),
        "good_scores": None if periods is None else good_scores(tally, periods),
        "period": None if periods is None else periods.kind,
        "heat": heat(units) if has_regions else None,
        "pareto": pareto(units) if has_regions else None,
        "sizes": [(_SIZE_NAMES[place], units.sizes[place]) for place in range(len(SIZES) + 1) if units.sizes[place]],
        "regions": sum(units.sizes.values()),
        "stages": _stages(tally),
        "outages": {log: (len(found), sum(found)) for log, found in tally.outages_s.items()},
        "worst": [_worst(event, score) for score, _, event in sorted(units.worst, reverse=True)],
        "kinds": tally.kinds.most_common(),
        "told": [(local(time), log, kind, text) for time, log, kind, text in reversed(tally.events)],
        "verdicts": VERDICTS,
    }


def local(time: str) -> str:
    """A time of an event for people, by this machine's clock."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _stages(tally: Tally) -> list[tuple[str, Any]]:
    """The stages that took time, the slowest of every hundredth frame first; those of the whole last."""
    found = [(stage, each.percentiles()) for stage, each in tally.latency.items() if each.count]
    return sorted(found, key=lambda item: (item[0] in ("total", "part"), -item[1].p99_ms))


def _worst(event: dict[str, Any], score: float) -> dict[str, Any]:
    found = event.get("worst") or event
    boxes = [region["box"] for region in found.get("regions", [])]
    return {
        "time": local(event["time"]),
        "log": event["log"],
        "part": event.get("part"),
        "part_id": event.get("part_id"),
        "verdict": event.get("part_result")
        or ("reject" if event.get("anomalous") else "unclear" if event.get("unclear") else "good"),
        "score": score,
        "source": found.get("source"),
        "frame": found.get("frame"),
        "box": " ".join(f"{value:g}" for value in boxes[0]) if boxes else "",
    }
