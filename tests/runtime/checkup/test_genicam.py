"""What the doctor sees of GenICam cameras."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from runtime.checkup.cameras import find_genicam
from runtime.sources import open_source

from ..sources.gige import SERIAL, URI, gige_camera

pytestmark = pytest.mark.heavy


def test_camera_is_named_with_serial_number_address_and_formats() -> None:
    with gige_camera():
        (found,) = [each.found for each in find_genicam() if SERIAL in each.found]
        assert found == (
            f"gige://{SERIAL}: Aravis Fake, serial {SERIAL} at 127.0.0.1; BayerBG8, BayerGB8, BayerGR8, BayerRG8, "
            "Mono8, RGB8, Mono16"
        )
        with open_source(URI) as source:  # and the line that has it is not disturbed
            (found,) = [each.found for each in find_genicam() if SERIAL in each.found]
            assert found.endswith("at 127.0.0.1; in use by another program or refused")
            assert source.read() is not None


def test_cameras_of_producers_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    package = importlib.util.find_spec("genicam")
    if package is None or package.origin is None:
        pytest.skip("there is no genicam: pip install 'stlm-edge[genicam]'")
    folder = Path(package.origin).parent
    monkeypatch.setenv("GENICAM_GENTL64_PATH", f"{folder}:/nowhere")
    found = [each.found for each in find_genicam() if each.subject == "GenTL"]
    assert len(found) == 3
    assert found[1] == f"genicam:{folder}/viky.cti#1: Machine Vision Games Ltd. Viky, serial 1; RGBa8, Mono8"
    monkeypatch.setenv("GENICAM_GENTL64_PATH", "/nowhere")
    assert [each.found for each in find_genicam() if each.subject == "GenTL"] == ["no camera answers"]


def test_without_aravis_it_says_what_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another library's name, since the real one cannot be hidden from the loader."""
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes\nreal = ctypes.CDLL\n"
        "class Hidden(real):\n"
        "    def __init__(self, name, *rest, **options):\n"
        "        super().__init__('nowhere.so' if 'aravis' in str(name) else name, *rest, **options)\n"
        "ctypes.CDLL = Hidden\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    (finding,) = find_genicam()
    assert (finding.subject, finding.state, finding.found) == ("Aravis", "missing", "not installed")
    assert finding.remedy == "gige:// and u3v:// cameras need it: sudo apt install libaravis-0.8-0"
