"""The inference libraries and OpenCV, each imported in a process of its own."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Any

from runtime.checkup.finding import Finding
from runtime.checkup.nvidia import DRIVER_LIBRARY, lacking_for_pycuda, toolkit
from runtime.checkup.probe import Reply, ask
from stlm_edge.errors import EngineError
from stlm_edge.extras import OLDER_NUMPY, OPENCV_HERE, OPENCV_ON_JETSON, REMEDIES, is_for_older_numpy
from stlm_edge.tensorrt import INSTALL, TITLES, ProductName, import_product

PYCUDA, BINDINGS, OPENVINO, ONNXRUNTIME, OPENCV = "pycuda", "cuda-bindings", "OpenVINO", "ONNX Runtime", "OpenCV"

_VERSION = "str(module.__version__)"
_OPENCV = """{
    "version": str(module.__version__),
    "build": module.getBuildInformation(),
    "file": module.__file__,
    "packages": sorted(set(__import__("importlib.metadata").metadata.packages_distributions().get("cv2", []))),
}"""
_DISTRIBUTION = "use the distribution's OpenCV (sudo apt install python3-opencv), not pip's"


def find_tensorrt(product: ProductName, *, compute_capability: str | None) -> list[Finding]:
    """One of the two TensorRTs.

    Args:
        compute_capability: of the GPU, such as `sm86`; None without one.
    """
    subject, install = TITLES[product], INSTALL[product]
    answer = ask(__name__, f"module.product_state({product!r})")
    if answer.failure is not None:
        return [Finding(subject, "broken", answer.failure, install)]
    if answer.value is None:
        return [Finding(subject, "missing", "not installed", install)]
    if "error" in answer.value:
        found, _, remedy = answer.value["error"].rpartition("; ")
        return [Finding(subject, "broken", found, remedy)]
    version, targets = answer.value["version"], answer.value["targets"]
    if targets and compute_capability is not None and compute_capability not in targets:
        found = f"{version}, for {', '.join(targets)}; this GPU is {compute_capability}"
        return [Finding(subject, "broken", found, "use TensorRT on this GPU, or an .onnx engine on the processor")]
    return [Finding(subject, "ok", version)]


def product_state(product: ProductName) -> dict[str, Any] | None:
    """Version of a product and compute capabilities that it is limited to; `error` if it is refused; None without."""
    try:
        module = import_product(product)
    except EngineError as error:
        return {"error": " ".join(str(error).split())}
    if module is None:
        return None
    names = getattr(getattr(module, "ComputeCapability", None), "__members__", ())
    return {
        "version": str(module.__version__),
        "targets": [name.lower() for name in names if name.startswith("SM")],
    }


def find_pycuda(root: Path) -> list[Finding]:
    """pycuda, and if it is not there what its build would lack; cuda-bindings alone runs plans as well.

    Args:
        root: the folder that has `usr`.
    """
    answer = ask("pycuda.driver", "__import__('importlib.metadata').metadata.version('pycuda')")
    if answer.failure is None:
        return [Finding(PYCUDA, "ok", str(answer.value))]
    lacking = lacking_for_pycuda(root)
    if DRIVER_LIBRARY in answer.failure:
        remedy = "it is built and finds no driver: install NVIDIA's driver"
    elif "cannot open shared object file" in answer.failure:
        remedy = (
            "it is built with a library that is gone: install that CUDA toolkit, or name its folder in LD_LIBRARY_PATH"
        )
    elif lacking:
        remedy = (
            f"its build would not find {', '.join(lacking)}: install the CUDA toolkit (a Jetson: sudo apt install "
            "cuda-toolkit), then PATH=/usr/local/cuda/bin:$PATH pip install pycuda"
        )
    else:
        remedy = f"build it: PATH={toolkit(root)}/bin:$PATH pip install --no-binary pycuda --force-reinstall pycuda"
    return [_unusable(PYCUDA, answer, f"{remedy}; cuda-bindings alone does as well" if answer.is_missing else remedy)]


def find_cuda_bindings() -> list[Finding]:
    """cuda-bindings, which makes CUDA graphs, and runs plans where pycuda is not installed."""
    answer = ask("cuda.bindings.driver", "__import__('cuda.bindings').bindings.__version__")
    remedy = "it makes CUDA graphs, and runs plans without pycuda and a compiler: pip install cuda-bindings"
    return [_finding(BINDINGS, answer, remedy=remedy)]


def find_openvino() -> list[Finding]:
    """OpenVINO, with the devices that it offers."""
    answer = ask("openvino", "[module.__version__.split('-')[0], ' '.join(module.Core().available_devices)]")
    if answer.failure is None:
        version, devices = answer.value
        answer = Reply(f"{version} on {devices}")
    return [_finding(OPENVINO, answer, remedy="pip install 'stlm-edge[openvino]'")]


def find_onnxruntime() -> list[Finding]:
    """ONNX Runtime."""
    # A mere folder of that name can be imported too.
    answer = ask("onnxruntime", "(module.InferenceSession, module.__version__)[1]")
    return [_finding(ONNXRUNTIME, answer, remedy="pip install 'stlm-edge[onnxruntime]'")]


def find_toolkit() -> list[Finding]:
    """What trains and exports, which no engine needs to run; looked up and not imported, since that takes seconds."""
    findings = []
    for subject, package, module, use in (
        ("PyTorch", "torch", "torch", "trains and exports checkpoints"),
        ("onnx", "onnx", "onnx", "exports"),
        ("ModelOpt", "nvidia-modelopt", "modelopt", "makes INT8 plans"),
        ("NNCF", "nncf", "nncf", "makes INT8 engines of OpenVINO"),
    ):
        try:
            findings.append(Finding(subject, "ok", metadata.version(package)))
        except metadata.PackageNotFoundError:
            remedy = f"it {use}, running an engine does without: {REMEDIES[module]}"
            findings.append(Finding(subject, "missing", "not installed", remedy))
    return findings


def find_opencv(*, is_jetson: bool = False) -> list[Finding]:
    """OpenCV, whose and where it is, and what it was built with: GStreamer, FFmpeg, V4L2, and a window to show.

    Args:
        is_jetson: JetPack's own is the right one, the one from pip has no GStreamer.
    """
    answer = ask("cv2", _OPENCV)
    own = OPENCV_ON_JETSON if is_jetson else f"{OPENCV_HERE}; everything here needs it"
    if answer.failure is not None:
        return [_unusable(OPENCV, answer, OLDER_NUMPY if is_for_older_numpy(answer.failure) else own)]
    build, owner = answer.value["build"], " and ".join(answer.value["packages"]) or "the system's"
    windows = "pip uninstall opencv-python-headless, then pip install 'stlm-edge[opencv]'"
    return [
        Finding(OPENCV, "ok", f"{answer.value['version']}, {owner}, in {Path(answer.value['file']).parent}"),
        _built_with(build, "GStreamer", f"csi:// and gst: cameras need it: {own if is_jetson else _DISTRIBUTION}"),
        _built_with(build, "FFMPEG", f"video files, rtsp:// and http:// need it: {own}"),
        _built_with(build, "v4l/v4l2", f"USB cameras need it: {own}"),
        _screen(build, own if is_jetson else windows),
    ]


def _screen(build: str, remedy: str) -> Finding:
    toolkit = _feature(build, "GUI")
    needs = "--output display:// needs it; files and event logs do not"
    if toolkit in ("", "NONE"):
        return Finding("screen", "missing", "OpenCV was built without windows", f"{needs}: {remedy}")
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return Finding("screen", "missing", f"neither DISPLAY nor WAYLAND_DISPLAY is set ({toolkit})", needs)
    trial = ask("cv2", "module.namedWindow('trial')")
    if trial.failure is not None:
        return Finding("screen", "broken", f"no window can be opened ({toolkit}): {trial.failure}", needs)
    return Finding("screen", "ok", f"{toolkit} on {os.environ.get('DISPLAY') or os.environ['WAYLAND_DISPLAY']}")


def _built_with(build: str, feature: str, remedy: str) -> Finding:
    value = _feature(build, feature)
    title = {"FFMPEG": "FFmpeg", "v4l/v4l2": "V4L2"}.get(feature, feature)
    if not value.startswith("YES"):
        return Finding(title, "missing", "OpenCV was built without it", remedy)
    return Finding(title, "ok", value.removeprefix("YES").strip(" ()") or "built in")


def _feature(build: str, name: str) -> str:
    """What `cv2.getBuildInformation` says of one entry, `` if it does not name it."""
    for line in build.splitlines():
        title, colon, value = line.strip().partition(":")
        if colon and title == name:
            return value.strip()
    return ""


def _finding(subject: str, answer: Reply, *, remedy: str) -> Finding:
    if answer.failure is not None:
        return _unusable(subject, answer, remedy)
    return Finding(subject, "ok", str(answer.value))


def _unusable(subject: str, answer: Reply, remedy: str) -> Finding:
    if answer.is_missing:
        return Finding(subject, "missing", "not installed", remedy)
    return Finding(subject, "broken", str(answer.failure), remedy)
