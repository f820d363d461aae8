"""Libraries that are not always there: which extra of this package brings each, and whose OpenCV belongs where."""

from __future__ import annotations

import re

OPENCV_HERE = "pip install 'stlm-edge[opencv]', or 'stlm-edge[headless]' on a machine without a screen"
_OPENCV_COMES = "a desktop gets it with the extras train, export, openvino and onnxruntime as well"
OPENCV_ON_JETSON = (
    "use JetPack's OpenCV, not pip's, which has no GStreamer: a virtual environment made with --system-site-packages, "
    "and for JetPack 6 pip install 'numpy==1.26.*' in it"
)
OLDER_NUMPY = "pip install 'numpy==1.26.*'"


def _install(*extras: str) -> str:
    return "pip install " + " or ".join(f"'stlm-edge[{extra}]'" for extra in extras)


REMEDIES = {
    **dict.fromkeys(
        ("torch", "torchvision", "timm", "segment_anything", "safetensors"),
        _install("train"),
    ),
    "yaml": f"{_install('line')} to run a line, 'stlm-edge[train]' to train; on a Jetson apt install python3-yaml",
    "onnxscript": _install("export"),
    "onnxruntime": f"{_install('onnxruntime')} to verify engines, 'stlm-edge[export]' for all else",
    "onnx": (
        f"{_install('engine')} to build plans from graphs, 'stlm-edge[engine,onnxruntime]' to verify them too, or "
        "'stlm-edge[export]' for all else"
    ),
    "tqdm": _install("train"),
    "ray": f"{_install('ray')}, or compute on this machine with --jobs",
    "numpy": "pip install numpy, or install stlm-edge again, which brings it",
    "modelopt": _install("int8"),
    "onnxsim": f"{_install('simplify')}, or leave --simplify out",
    "nncf": _install("openvino-int8"),
    "openvino": _install("openvino"),
    **dict.fromkeys(("harvesters", "genicam"), _install("genicam")),
    "matplotlib": _install("report", "train"),
    **dict.fromkeys(("jinja2", "markupsafe"), _install("report")),
    "paho": _install("mqtt"),
    "pymodbus": _install("modbus"),
    "asyncua": _install("opcua"),
    "gpiod": _install("gpio"),
    **dict.fromkeys(("starlette", "uvicorn", "prometheus_client"), _install("page")),
    "cv2": f"{OPENCV_HERE} ({_OPENCV_COMES}); on a Jetson {OPENCV_ON_JETSON}",
}
"""Name of a module → how to get it."""

_OTHER_NUMPY = re.compile(r"numpy\._?core\.\w+ failed to import|_ARRAY_API not found")


def is_for_older_numpy(failure: str) -> bool:
    """Whether a library says this on being imported that was built for numpy 1 and finds numpy 2."""
    return _OTHER_NUMPY.search(failure) is not None


def explained(error: ImportError) -> str | None:
    """One line on a library that is missing or was built for another numpy, with the remedy; None if it is neither."""
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        remedy = REMEDIES.get(module)
        return None if remedy is None else f"found no {module}, expected it for this command; {remedy}"
    if is_for_older_numpy(str(error)):
        return f"found a library built for numpy 1, such as JetPack 6's OpenCV, beside numpy 2 ({error}); {OLDER_NUMPY}"
    return None
