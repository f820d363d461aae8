"""Record how pycuda's source declares the names in `names.json`.

pycuda compiles only where a CUDA toolkit is, and works only where a driver is; but each name that it gives to Python
stands in one file of its source. To renew `pycuda.json`: `pip download --no-deps --no-binary :all: pycuda==2026.1`,
unpack it, and

    python tests/runtime/cuda_api/record_pycuda.py FOLDER
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent

_CLASS = re.compile(r'py::(?:class_|enum_)<[^"]*"(?P<name>\w+)"', re.DOTALL)
_MEMBER = re.compile(
    r"\.def\(\"(?P<def>\w+)\"|\.DEF_SIMPLE_METHOD\((?P<simple>\w+)\)|\.value\(\"(?P<value>\w+)\""
    r"|cls\.attr\(\"(?P<attr>\w+)\"\)|\.add_property\(\"(?P<property>\w+)\""
)
_FUNCTION = re.compile(
    r"(?<!\.)py::def\(\"(?P<def>\w+)\"|DEF_SIMPLE_FUNCTION\((?P<simple>\w+)\)|DECLARE_EXC\((?P<exc>\w+),"
)


def declarations(source: str) -> dict[str, str]:
    """Dotted name → the line of the source that gives it to Python; of a class also what its base has."""
    body = source[source.index("BOOST_PYTHON_MODULE(_driver)") :]
    found: dict[str, str] = {}
    marks = [*_CLASS.finditer(body), *_MEMBER.finditer(body), *_FUNCTION.finditer(body)]
    owner = ""
    for mark in sorted(marks, key=lambda each: each.start()):
        name = next(group for group in mark.groups() if group)
        line = body[body.rfind("\n", 0, mark.end()) + 1 : body.find("\n", mark.end())].strip()
        if mark.re is _CLASS:
            owner = name
            found[name] = line
        elif mark.re is _FUNCTION:
            found[name] = line
        else:
            found.setdefault(f"{owner}.{name}", line)
    for name in [name for name in found if name.startswith("HostPointer.")]:
        found[name.replace("HostPointer", "PagelockedHostAllocation")] = found[name]
    return found


def main(folder: Path) -> None:
    declared = declarations((folder / "src" / "wrapper" / "wrap_cudadrv.cpp").read_text(encoding="utf-8"))
    names = json.loads((HERE / "names.json").read_text())["pycuda"]
    wanted = sorted(f"{owner}.{name}".removeprefix(".") for owner, members in names.items() for name in members)
    version = re.search(r"^Version: (.*)$", (folder / "PKG-INFO").read_text(encoding="utf-8"), re.MULTILINE)
    content = {
        "version": version[1] if version else None,
        "declarations": {name: declared[name] for name in wanted if name in declared},
    }
    (HERE / "pycuda.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
