"""Cameras that the kernel knows. Their devices are opened for a moment and asked what they are, nothing is captured."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.checkup.finding import Finding
from runtime.checkup.probe import ask
from runtime.devices import ARGUS_SOCKET, gives_pictures
from runtime.sources.genicam.transport import FOLDERS_VARIABLE

_ANSWER_S = 10.0
_GENICAM_S = 30.0
"""Each camera is opened and asked for its formats."""


def find_cameras(root: Path) -> list[Finding]:
    """Every `/dev/video*` with its name, and whether it can be read.

    Args:
        root: the folder that has `dev` and `sys`.
    """
    devices = sorted((root / "dev").glob("video[0-9]*"), key=lambda path: (len(path.name), path.name))
    if not devices:
        return [Finding("camera", "missing", "no /dev/video*", "plug one in; network cameras need none of them")]
    return [_camera(device, root) for device in devices]


def find_csi(root: Path) -> list[Finding]:
    """The daemon that a Jetson's CSI cameras are reached by.

    Args:
        root: the folder that has `tmp`.
    """
    if (root / ARGUS_SOCKET.relative_to("/")).exists():
        return [Finding("CSI cameras", "ok", "nvargus-daemon is running")]
    remedy = f"sudo systemctl restart nvargus-daemon; in a container, mount {ARGUS_SOCKET}"
    return [Finding("CSI cameras", "missing", f"no {ARGUS_SOCKET}, so nvargus-daemon is not running", remedy)]


def find_genicam() -> list[Finding]:
    """GigE Vision and USB3 Vision cameras that answer, and those of vendors' producers, with their formats."""
    install = "gige:// and u3v:// cameras need it: sudo apt install libaravis-0.8-0"
    findings = _answering("Aravis", "by_aravis", remedy=install)
    if os.environ.get(FOLDERS_VARIABLE):
        findings += _answering("GenTL", "by_producers", remedy="pip install 'stlm-edge[genicam]'")
    return findings


def query(device: str) -> bool:
    """Whether a device gives pictures. Raises `OSError`."""
    handle = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        return gives_pictures(handle)
    finally:
        os.close(handle)


def _camera(device: Path, root: Path) -> Finding:
    subject, name = f"camera {device.name.removeprefix('video')}", _name(device, root)
    # A driver that hangs does so in another process.
    answer = ask(__name__, f"module.query({str(device)!r})", timeout_s=_ANSWER_S)
    if answer.failure is not None and answer.failure.startswith("PermissionError"):
        remedy = "sudo usermod -aG video $USER, then log in again; in a container, give it the device"
        return Finding(subject, "broken", f"{name}, permission denied for {device}", remedy)
    if answer.failure is not None:
        found = f"{name}, {device} does not say what it is ({answer.failure})"
        return Finding(subject, "broken", found, "plug it in again, or look for its driver in dmesg")
    if not answer.value:
        return Finding(subject, "ok", f"{name}, gives no pictures (metadata of the camera next to it)")
    return Finding(subject, "ok", name)


def _answering(subject: str, question: str, *, remedy: str) -> list[Finding]:
    answer = ask("runtime.sources.genicam.checkup", f"module.{question}()", timeout_s=_GENICAM_S)
    if answer.failure is not None:
        if answer.is_missing or "found no" in answer.failure or "No module named" in answer.failure:
            return [Finding(subject, "missing", "not installed", remedy)]
        return [Finding(subject, "broken", answer.failure, remedy)]
    if not answer.value:
        return [Finding(subject, "ok", "no camera answers")]
    return [Finding(subject, "ok", found) for found in answer.value]


def _name(device: Path, root: Path) -> str:
    try:
        return (root / "sys/class/video4linux" / device.name / "name").read_text(errors="replace").strip()
    except OSError:
        return "a camera without a name"
