"""Machines that lack things or have broken ones: packages and a driver that are found before the real ones."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from stlm_edge.tensorrt import FEATURES

Package = Callable[[str, str], None]
Driver = Callable[..., None]

LIBCUDA = """
#include <string.h>
#include <stdlib.h>
int cuInit(unsigned flags) { %(start)s; return %(status)d; }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device)
    { *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 16; return 0; }
"""


def module_of(version: str, features: Iterable[str] = FEATURES, more: str = "") -> str:
    """The code of a module of TensorRT that has a version, some features, and nothing behind them."""
    return f"""
__version__ = {version!r}
class Builder: pass
for feature in {tuple(features)!r}:
    owner, _, member = feature.rpartition(".")
    if owner:
        setattr(globals().setdefault(owner, type(owner, (), {{}})), member, None)
    else:
        globals()[member] = None
{more}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """`install(name, code)` makes a package that is imported instead of the real one of that name."""
    folder = tmp_path / "packages"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))

    def make(name: str, code: str) -> None:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(code)

    return make


@pytest.fixture
def hide(install: Package) -> Callable[..., None]:
    """`hide(name, …)` has those packages not found, as where they are not installed."""

    def do(*names: str) -> None:
        for name in names:
            install(name, f"raise ModuleNotFoundError('No module of that name', name={name!r})")

    return do


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """`driver(status=0, start="")` installs a libcuda that answers as on a Jetson AGX Orin."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a libcuda with")

    def make(*, status: int = 0, start: str = "") -> None:
        source = tmp_path / "libcuda.c"
        source.write_text(LIBCUDA % {"status": status, "start": start})
        subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    return make
