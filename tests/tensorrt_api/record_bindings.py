"""Record which of the names in `names.json` the published Python bindings of TensorRT contain.

The bindings are public wheels without TensorRT's libraries, so they cannot be imported; but each name they define is a
string in them, ended by a zero. A linker stores a string that is the end of another one only once, so what stands
before is not looked at: a name that is missing is missing, a short one that is found may belong to another class; for
those there are `stubs.json` and the installed TensorRT-RTX. To renew `bindings.json`: download the wheels, such as
tensorrt-cu12-bindings, with `pip download --no-deps`, unzip each into a folder, and

    python tests/tensorrt_api/record_bindings.py tests/tensorrt_api 8.6.1=FOLDER 10.0.1=FOLDER 10.3.0=FOLDER …

The wheel of 8.6.1 is tensorrt-bindings, which has the names of JetPack 6.0's 8.6.2.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

REMOVED = ("FP16", "EXPLICIT_BATCH", "platform_has_fast_fp16")
"""What TensorRT 11 no longer has; it shows that a name which is missing is seen to be missing."""


def names(api: Path) -> list[str]:
    """All names used, without the classes they belong to, and those that TensorRT 11 has removed."""
    groups = json.loads((api / "names.json").read_text())
    used = {name for group in groups.values() for members in group.values() for name in members}
    owners = {part for group in groups.values() for owner in group for part in owner.split(".") if part}
    return sorted(used | owners | set(REMOVED))


def main(api: Path, *folders: str) -> None:
    recorded = {}
    for entry in folders:
        version, folder = entry.split("=", 1)
        (library,) = Path(folder).glob("**/tensorrt_bindings/tensorrt.so")
        content = library.read_bytes()
        recorded[version] = [name for name in names(api) if name.encode() + b"\0" in content]
    (api / "bindings.json").write_text(json.dumps(recorded, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
