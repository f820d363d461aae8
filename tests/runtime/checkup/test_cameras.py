"""A tree of devices like the kernel's, whose files are no cameras; the kernel's answers are bytes."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import runtime
from runtime.checkup.cameras import find_cameras, find_csi
from runtime.devices import captures

CAPTURE, META, STREAMING, OWN = 0x1, 0x00800000, 0x04000000, 0x80000000


def capability(of_all: int, of_node: int) -> bytes:
    return struct.pack("16s32s32sIII3I", b"uvcvideo", b"Camera", b"usb-1", 0x060000, of_all, of_node, 0, 0, 0)


def device(root: Path, number: int, name: str | None) -> Path:
    path = root / f"dev/video{number}"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    if name is not None:
        folder = root / f"sys/class/video4linux/video{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
    return path


@pytest.mark.parametrize(
    ("of_all", "of_node", "expected"),
    [
        (OWN | CAPTURE | META | STREAMING, CAPTURE | STREAMING, True),
        (OWN | CAPTURE | META | STREAMING, META | STREAMING, False),
        (CAPTURE | STREAMING, 0, True),
        (STREAMING, 0, False),
    ],
    ids=["pictures", "metadata of a camera", "old driver", "old driver of an output"],
)
def test_node_with_pictures_is_told_from_one_with_metadata(of_all: int, of_node: int, expected: bool) -> None:
    assert captures(capability(of_all, of_node)) is expected


def test_no_camera(tmp_path: Path) -> None:
    (finding,) = find_cameras(tmp_path)
    assert (finding.state, finding.found) == ("missing", "no /dev/video*")


@pytest.mark.heavy
def test_every_device_is_named_in_the_order_of_its_number(tmp_path: Path) -> None:
    device(tmp_path, 10, "Basler")
    device(tmp_path, 2, "HD Webcam")
    device(tmp_path, 3, None)
    findings = find_cameras(tmp_path)
    assert [finding.subject for finding in findings] == ["camera 2", "camera 3", "camera 10"]
    assert [finding.found.partition(",")[0] for finding in findings] == [
        "HD Webcam",
        "a camera without a name",
        "Basler",
    ]
    assert {finding.state for finding in findings} == {"broken"}
    assert "does not say what it is (OSError" in findings[0].found


@pytest.mark.heavy
def test_device_that_is_gone_again_is_a_line(tmp_path: Path) -> None:
    device(tmp_path, 0, "HD Webcam").unlink()
    (tmp_path / "dev/video0").symlink_to(tmp_path / "nowhere")
    (finding,) = find_cameras(tmp_path)
    assert "FileNotFoundError" in finding.found


@pytest.mark.heavy
def test_permission_denied_comes_with_the_group(tmp_path: Path) -> None:
    camera = device(tmp_path, 0, "HD Webcam")
    camera.chmod(0)
    code = "import pathlib, runtime.checkup.cameras as c; print(c.find_cameras(pathlib.Path()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(runtime.__file__).parents[1])},
        preexec_fn=obey_permissions,
    )
    assert "HD Webcam, permission denied for dev/video0" in done.stdout
    assert "usermod -aG video" in done.stdout


def obey_permissions() -> None:
    """Root reads whatever it likes; without these two capabilities it does not. Others never had them."""
    for capability_number in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability_number)  # PR_CAPBSET_DROP


def test_csi_cameras_need_their_daemon(tmp_path: Path) -> None:
    (finding,) = find_csi(tmp_path)
    assert finding.state == "missing"
    assert "nvargus-daemon" in str(finding.remedy)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/argus_socket").touch()
    (finding,) = find_csi(tmp_path)
    assert finding.state == "ok"
