"""The picture of a part for other programs."""

from __future__ import annotations

import json

from runtime.part import Part
from stlm_edge.imaging import encode_image
from stlm_edge.names import escaped


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
