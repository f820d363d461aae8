"""Record what type stubs of TensorRT declare of the names in `names.json`.

The stubs' package wants TensorRT itself, which the tests must do without, so what is needed of them is kept in
`stubs.json`. To renew it: download the wheel of tensorrt-stubs with `pip download --no-deps`, unzip it, and

    python tests/tensorrt_api/record_stubs.py tests/tensorrt_api 10.13.0 FOLDER
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

_DECLARATION = re.compile(
    r"(?P<indent> *)"
    r"(?:class (?P<class>\w+)[:(]|def (?P<def>\w+)\(|(?P<value>\w+): (?:typing\.)?\w+(?:\[[\w.]+\])?(?:  #|$))"
)


def declarations(text: str) -> dict[str, str]:
    """Dotted name → the line that declares it, of classes and their members, however deep.

    Read line by line, since one of the stubs' declarations is not valid Python.
    """
    found: dict[str, str] = {}
    owners: list[tuple[int, str]] = []
    for line in text.splitlines():
        declared = _DECLARATION.match(line)
        if declared is None:
            continue
        indent, name = len(declared["indent"]), declared["class"] or declared["def"] or declared["value"]
        owners = [owner for owner in owners if owner[0] < indent]
        dotted = ".".join([*(owner for _, owner in owners), name])
        found.setdefault(dotted, line.split("  #")[0].strip())
        if declared["class"]:
            owners.append((indent, name))
    return found


def main(api: Path, version: str, folder: Path) -> None:
    declared = declarations((folder / "tensorrt_bindings" / "tensorrt.pyi").read_text(encoding="utf-8"))
    names = json.loads((api / "names.json").read_text())
    wanted = sorted(
        f"{owner}.{name}".removeprefix(".")
        for group in names.values()
        for owner, members in group.items()
        for name in members
    )
    content = {"version": version, "declarations": {name: declared[name] for name in wanted if name in declared}}
    (api / "stubs.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
