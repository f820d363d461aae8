"""Build pycuda for the tests, without a CUDA toolkit: `make test` calls this once, which takes a minute or two.

The headers are those of NVIDIA's packages that torch brings; what it is linked with is `libcuda.c`. The result is kept
under `~/.cache/stlm-edge`, and no environment has it but the processes of `test_real_drivers.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from stlm_edge.files import cache_folder

VERSION = "2026.1"
HERE = Path(__file__).parent

_PROFILER = """#pragma once
#include <cuda.h>
typedef enum { CU_OUT_KEY_VALUE_PAIR = 0, CU_OUT_CSV = 1 } CUoutput_mode;
extern "C" CUresult cuProfilerInitialize(const char *, const char *, CUoutput_mode);
extern "C" CUresult cuProfilerStart(void);
extern "C" CUresult cuProfilerStop(void);
"""
"""`cudaProfiler.h`, which NVIDIA has in a package of its own."""


def pycuda_folder() -> Path:
    """Where pycuda and what it needs lies once it is built; belongs on the path of a process."""
    return cache_folder() / f"pycuda-{VERSION}-{sys.implementation.cache_tag}"


def build_libcuda(folder: Path, *, name: str = "libcuda.so.1") -> Path:
    """Compile the driver into a folder."""
    library = folder / name
    flags = ["-shared", "-fPIC", "-O1", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["gcc", *flags, "-o", library, HERE / "libcuda.c"], check=True)
    return library


def find_headers() -> Path | None:
    """The folder that has CUDA's `cuda.h`."""
    packages = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    found = [*packages.glob("*/include/cuda.h"), Path("/usr/local/cuda/include/cuda.h")]
    return next((header.parent for header in found if header.is_file()), None)


def build(folder: Path, headers: Path) -> None:
    """Build pycuda without cuRAND and unoptimised, and install it into a folder."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        source = [*pip, "download", "--no-deps", "--no-binary", "pycuda", "--dest", work, f"pycuda=={VERSION}"]
        subprocess.run(source, check=True)
        with tarfile.open(work / f"pycuda-{VERSION}.tar.gz") as archive:
            archive.extractall(work)
        (work / "cudaProfiler.h").write_text(_PROFILER)
        build_libcuda(work, name="libcuda.so")
        settings = {
            "CUDA_INC_DIR": [str(headers), str(work)],
            "CUDADRV_LIB_DIR": [str(work)],
            "CUDADRV_LIBNAME": ["cuda"],
            "CUDA_ENABLE_CURAND": False,
            "CXXFLAGS": ["-O0", "-g0", "-w"],
            # Most of what pycuda could call is not in `libcuda.c`, and need not be until it is called.
            "LDFLAGS": ["-Wl,-z,lazy", "-Wl,--no-as-needed"],
        }
        unpacked = work / f"pycuda-{VERSION}"
        (unpacked / "siteconf.py").write_text("".join(f"{key} = {value!r}\n" for key, value in settings.items()))
        subprocess.run([*pip, "install", "--no-cache-dir", "--target", work / "made", unpacked], check=True)
        if not folder.is_dir():  # another clone may have been faster
            (work / "made").replace(folder)


def main() -> int:
    folder, headers = pycuda_folder(), find_headers()
    if folder.is_dir():
        return 0
    if headers is None or shutil.which("g++") is None:
        print(f"found no {'cuda.h' if headers is None else 'g++'}: the tests of the real pycuda are skipped")
        return 0
    print(f"building pycuda {VERSION} for the tests, once")
    try:
        build(folder, headers)
    except subprocess.CalledProcessError as error:
        print(f"pycuda cannot be built ({error}): the tests of it are skipped")
        return int("CI" in os.environ)
    return 0


if __name__ == "__main__":
    sys.exit(main())
