"""What other programs are told of a part: as JSON, and as a picture."""

from __future__ import annotations

import json
from typing import Any

from runtime.part import Part
from runtime.sinks.base import utc
from stlm_edge.imaging import encode_image
from stlm_edge.names import escaped


def part_event(part: Part, *, engine_sha256: str) -> dict[str, Any]:
    """What is told of a part, ready for JSON.

    Keys: `time` (of the result, ISO 8601, UTC), `part`, `part_id`, `verdict`, `score` and `threshold` of the worst
    frame (null where none was judged), `frames`, `regions` of the worst frame, as in `verdict_event`, `recipe`,
    `latency_ms`, `engine_sha256`. Names are escaped, see `stlm_edge.names`.
    """
    worst = part.worst
    regions = () if worst is None or worst.anomaly is None else worst.anomaly.regions
    return {
        "time": utc(part.decided_s).isoformat(timespec="milliseconds"),
        "part": part.number,
        "part_id": None if part.part_id is None else escaped(part.part_id),
        "verdict": part.verdict,
        "score": part.score,
        "threshold": None if worst is None else worst.threshold,
        "frames": part.frames,
        "regions": [
            {
                "box": [region.left, region.top, region.width, region.height],
                "area": region.area,
                "peak": round(region.peak, 4),
            }
            for region in regions
        ],
        "recipe": None if part.recipe is None else escaped(part.recipe),
        "latency_ms": round(part.latency_ms, 3),
        "engine_sha256": engine_sha256,
    }


def snapshot(part: Part, *, run: str) -> bytes | None:
    """The worst frame of a part that is not good as a JPEG, drawn; None of a good part, or where there is no frame.

    Its comment is the JSON object that tells which part it shows, `{"run": …, "part": …, "part_id": …}`.
    """
    if part.verdict == "good" or part.worst is None or part.worst.picture is None:
        return None
    picture = encode_image(part.worst.picture(), suffix=".jpg")
    part_id = None if part.part_id is None else escaped(part.part_id)
    text = json.dumps({"run": run, "part": part.number, "part_id": part_id}).encode()
    # Behind the two bytes that begin the picture: a comment's mark and its length, which counts itself.
    return picture[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + picture[2:]
