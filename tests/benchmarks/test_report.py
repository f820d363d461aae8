"""The report shows every record in tables and pictures, and says where each figure is from."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks.cells import figure, percent
from benchmarks.plots import figure_1, placed_methods, sizes
from benchmarks.record import Measure, origins
from benchmarks.report import main, to_markdown, to_report
from benchmarks.tables import KINDS
from train.paper.figure_1 import label

from . import samples
from .samples import write_record

COMMITTED = sorted((Path(__file__).resolve().parents[2] / "benchmarks" / "results").glob("*.json"))


def written(tmp_path: Path, *paths: Path) -> str:
    """The tables alone."""
    document = tmp_path / "report.md"
    assert main([*map(str, paths), "--markdown", str(document)]) == 0
    return document.read_text(encoding="utf-8")


def test_folder_has_a_picture_for_figure_1_latency_and_sizes(tmp_path: Path) -> None:
    paths = [write_record(tmp_path, benchmark) for benchmark in samples.DETAILS]
    assert main([*map(str, paths), "-o", str(tmp_path / "report")]) == 0
    document = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\((.+?)\)", document)
    assert sorted(shown) == ["figure-1.png", "latency.png", "sizes.png"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted([*shown, "report.md"])
    for name in shown:
        picture = cv2.imread(str(tmp_path / "report" / name))
        assert picture is not None
        assert picture.shape[1] > 1000
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_records_of_one_file_name_have_pictures_of_their_own(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    sources = origins(write_record(tmp_path / folder, "sizes") for folder in ("here", "there"))
    document, pictures = to_report(sources, has_pictures=True)
    assert re.findall(r"\]\((.+\.png)\)", document) == list(pictures) == ["figure-1.png", "sizes.png", "2-sizes.png"]


def test_committed_records_make_a_report(tmp_path: Path) -> None:
    document = written(tmp_path, *COMMITTED)
    for path in COMMITTED:
        assert f"(`{path.name}`)" in document


@pytest.mark.parametrize("benchmark", samples.DETAILS)
def test_every_table_says_where_it_is_from(tmp_path: Path, benchmark: str) -> None:
    document = written(tmp_path, write_record(tmp_path, benchmark))
    tables = len(re.findall(r"^\|---", document, re.MULTILINE))
    assert tables >= 1
    origin = (
        f"- `python -m benchmarks.{benchmark} --json <{benchmark}.json>`: Made-up processor (family 1, model 2), 2 "
        f"cores, avx2; 2026-01-02, commit 0123456 (`{benchmark}.json`)"
    )
    assert document.count(origin) == tables
    assert "INCOMPLETE" not in document


def test_record_of_changed_files_and_one_that_nothing_makes_any_more_say_so(tmp_path: Path) -> None:
    assert "commit 0123456, with changed files (" in written(tmp_path, write_record(tmp_path, "demo", changed=True))
    gone = next(path for path in COMMITTED if path.name == "loader-1024.json")
    assert "commit 0519ec1; the last that could make it is 9c83b53 (" in written(tmp_path, gone)


def test_figure_1_has_a_panel_for_each_record_of_peers_beside_the_paper(tmp_path: Path) -> None:
    here = write_record(tmp_path, "peers")
    there = write_record(tmp_path, "peers", name="there.json", device=samples.GPU)
    sources = origins([here, there, write_record(tmp_path, "sizes")])
    assert [[method["name"] for method in placed_methods(source)] for source in sources] == [
        ["PatchCore", "STLM"],
        ["PatchCore", "STLM"],
        [],
    ]
    drawn, caption = figure_1(sources)
    assert drawn.startswith(b"\x89PNG")
    assert len(cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR)) > 1.5 * len(
        cv2.imdecode(np.frombuffer(figure_1(sources[:1])[0], np.uint8), cv2.IMREAD_COLOR)
    )
    assert "nothing of it was measured here" in caption
    assert re.findall(r"\n- made-up tiles; (Made-up \S+).*: (\S+)", caption) == [
        ("Made-up processor", "peers.json"),
        ("Made-up GPU", "there.json"),
    ]


def test_method_without_accuracy_or_time_is_in_no_picture_and_one_without_parameters_is(tmp_path: Path) -> None:
    details = samples.peers()
    details["methods"][0]["pixel_auroc"] = None
    details["methods"][1]["parameters"] = None
    (source,) = origins([write_record(tmp_path, "peers", details)])
    assert [method["name"] for method in placed_methods(source)] == ["STLM"]
    assert figure_1([source])[0].startswith(b"\x89PNG")


def test_names_in_pictures_cover_neither_marks_nor_each_other() -> None:
    drawn = Figure(figsize=(6, 4), dpi=100)
    axes = drawn.subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    places = [(5.0, 5.0), (5.2, 5.1), (5.4, 5.0), (9.8, 9.8), (0.1, 0.1)]
    for index, place in enumerate(places):
        axes.scatter(*place, s=55, label=f"method {index}")
    drawn.draw_without_rendering()
    label(axes)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        assert not any(box.contains(*axes.transData.transform(place)) for place in places)
        assert axes.bbox.x0 - 1 <= box.x0 <= box.x1 <= axes.bbox.x1 + 1
        assert axes.bbox.y0 - 1 <= box.y0 <= box.y1 <= axes.bbox.y1 + 1


def test_sizes_are_drawn_as_svg_with_text_that_stays_text() -> None:
    points = samples.sizes()["points"]
    drawn = sizes(points, title="made-up tiles", suffix=".svg").decode()
    for name in (
        "128 x 128 fp32",
        "256 x 256 fp32",
        "256 x 256 int8",
        "512 x 512 fp32",
        "not verified",
        "trained at another size",
    ):
        assert f">{name}</text>" in drawn, name
    assert "not verified" not in sizes(points[:2], title="made-up tiles", suffix=".svg").decode()


def test_incomplete_record_is_shown_with_a_loud_mark(tmp_path: Path) -> None:
    path = write_record(tmp_path, "peers", is_complete=False)
    assert "**peers.json is INCOMPLETE" in written(tmp_path, path)
    assert "peers.json (**INCOMPLETE" in figure_1(origins([path]))[1]


def test_incomplete_record_without_details_shows_what_it_has_measured(tmp_path: Path) -> None:
    path = write_record(tmp_path, "peers", {"pictures": "4 drawn parts"}, is_complete=False)
    document = written(tmp_path, path)
    assert "| something total p50 | 2.00 | 1.00 – 4.00 | ms | lower |" in document
    assert "INCOMPLETE" in document
    (source,) = origins([path])
    report, pictures = to_report([source], has_pictures=True)
    assert list(pictures) == ["figure-1.png"]
    assert "INCOMPLETE" in report


def test_records_of_other_benchmarks_are_shown_by_their_measures(tmp_path: Path) -> None:
    document = written(tmp_path, write_record(tmp_path, "counts", {}))
    assert "## counts (counts.json)" in document
    assert "| something total p50 | 2.00 | 1.00 – 4.00 | ms | lower |" in document


def test_stage_that_has_no_column_is_not_left_out_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    details = samples.latency()
    details["subjects"][0]["stages"]["dream"] = details["subjects"][0]["stages"]["total"]
    assert main([str(write_record(tmp_path, "latency", details)), "--markdown", str(tmp_path / "report.md")]) == 1
    assert "stages ['dream'], expected some of" in capsys.readouterr().err


def test_training_record_shows_its_steps_its_loader_or_both(tmp_path: Path) -> None:
    settings = {"image_size": [64, 96], "batch_size": 2, "pseudo_anomalies": "perlin", "architecture": "stlm-tiny"}
    settings |= {"teacher": "gabor", "teacher_weights": "random"}
    way = {"phases_s": {"teacher": 0.5}, "anomalous_share": 0.5, "memory_gb": 1.0}
    steps = {"ratio": 2.0, "ratios": [1.9, 2.1], "ways": {"straightforward": way, "stlm-edge": way}}
    times = {
        f"{name} step": Measure("s", "lower", (seconds,))
        for name, seconds in (("straightforward", 4.0), ("stlm-edge", 2.0))
    }
    rates = {
        "straightforward loader": Measure("pictures/s", "higher", (10.0,)),
        "loader, 0 workers": Measure("pictures/s", "higher", (25.0,)),
    }
    loader = written(tmp_path, write_record(tmp_path, "training", {"settings": settings}, measures=rates))
    assert "| straightforward loader | 10.0 | 1.00 |\n| 0 workers | 25.0 | 2.50 |" in loader
    assert "Pseudo anomalies (perlin) into pictures at 64 x 96, batches of 2." in loader
    assert "### A training step" not in loader
    both = written(
        tmp_path, write_record(tmp_path, "training", {"settings": settings, **steps}, measures=times | rates)
    )
    assert "| 4.00 | 2.00 | 2.00 [1.90, 2.10] | 0.500, 0.500 | 50 % | 1.00, 1.00 |" in both
    assert "### A training step" in both
    assert "### The loader" in both


def test_peers_with_intervals_show_them_by_kind_of_defect(tmp_path: Path) -> None:
    details = samples.peers()
    assert "95 % intervals" not in written(tmp_path, write_record(tmp_path, "peers", details))
    known, unknown = {"value": 0.755, "low": 0.61, "high": 0.9}, dict.fromkeys(("value", "low", "high"))
    areas = {"image_auroc": known, "pixel_auroc": known, "aupro": unknown, "pixel_ap": known | {"low": None}}
    details["methods"][0] |= {"kinds": {"crack": areas, "all": areas}, "gain": {"all": areas}}
    document = written(tmp_path, write_record(tmp_path, "peers", details))
    assert "| PatchCore | crack | 75.5 [61, 90] | 75.5 [61, 90] | – | 75.5 [–, 90] |" in document
    assert (
        "| PatchCore, gain over the bar | all | +75.5 [+61, +90] | +75.5 [+61, +90] | – | +75.5 [–, +90] |" in document
    )


def test_estimate_for_the_papers_gpu_is_called_one(tmp_path: Path) -> None:
    document = written(tmp_path, write_record(tmp_path, "latency")).replace("\n", " ")
    assert "Tiny fp32: ESTIMATE by data sheets, not measured: the network would take 11.0 to 13.5 ms" in document


def test_text_of_a_record_stays_in_its_cell(tmp_path: Path) -> None:
    details = samples.sizes()
    details["points"][1]["name"] = "a | b\nc"
    assert "| a \\| b c | fp32 |" in written(tmp_path, write_record(tmp_path, "sizes", details))


def test_summary_has_the_paper_once_and_few_rows_of_each_record(tmp_path: Path) -> None:
    paths = [write_record(tmp_path, benchmark) for benchmark in ("demo", "peers", "sizes", "latency")]
    lines = to_markdown(KINDS["summary"], origins(paths)).splitlines()
    cells = [line.split(" | ") for line in lines if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in cells[1:]] == [
        "STLM, as the paper reports it",
        "stlm-tiny, `make demo`, network alone",
        "TinyViT at 256 x 256",
        "PatchCore, resnet18",
        "128 fp32",
        "256 fp32",
        "authors' way, stlm-tiny at 256 x 256",
        "tiny int8, stlm-tiny at 256 x 256",
    ]
    assert cells[1][1:] == ["MVTec AD", "99.05", "98.26", "94.92", "20", "–", "NVIDIA GeForce RTX 3090, PyTorch |"]
    assert cells[2][1:7] == ["drawn part", "91.0", "88.0", "70.0", "20.4", "26.7"]
    assert cells[4][1:7] == ["made-up tiles", "91.0", "88.0", "70.0", "50.0", "60.0"]
    assert cells[8][1:7] == ["–", "–", "–", "–", "10.0", "12.0"]
    assert "nothing of it was measured here" in " ".join(lines)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ('{"a": 1}', "no benchmark's record"),
        ('{"schema_version": 99, "benchmark": "latency"}', "schema version 99"),
    ],
)
def test_file_that_is_no_record_is_one_line(
    tmp_path: Path, content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text(content)
    assert main([str(tmp_path / "x.json"), "-o", str(tmp_path / "report")]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("benchmark", samples.DETAILS)
def test_complete_record_that_lacks_what_is_shown_is_one_line(
    tmp_path: Path, benchmark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_record(tmp_path, benchmark, {"data": "made-up tiles"})
    assert main([str(path), "-o", str(tmp_path / "report")]) == 1
    error = capsys.readouterr().err
    assert f"{path} lacks what is to be shown of benchmarks.{benchmark}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_no_records_and_no_place_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", str(tmp_path / "report")]) == 1
    assert "no records were given" in capsys.readouterr().err
    record = write_record(tmp_path, "demo")
    assert main([str(record), "-o", str(record / "report")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_without_matplotlib_one_line_says_so_and_the_tables_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.plots")
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_NoMatplotlib(), *sys.meta_path])
    record = write_record(tmp_path, "demo")
    assert main([str(record), "-o", str(tmp_path / "report")]) == 1
    assert "found no matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
    assert "| chip |" in written(tmp_path, record)


class _NoMatplotlib(MetaPathFinder):
    """Of a machine that has none."""

    def find_spec(self, fullname: str, *_: Any) -> None:
        if fullname.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x.json"],
        ["--check", "-o", "report"],
        ["--renew", "x.md", "--markdown", "x"],
        ["--renew"],
        ["--renew", "x.md", "-o", "report"],
    ],
)
def test_what_makes_no_sense_is_wrong_usage(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_figures_have_three_digits_and_no_exponent() -> None:
    assert [figure(value) for value in (None, 0.0123, 8.6, 99.96, 1234.5)] == ["–", "0.0123", "8.60", "100", "1234"]
    assert percent(0.7955) == "79.6"
    assert percent(0.005, sign="+") == "+0.5"


@pytest.mark.heavy
def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom benchmarks.report import main, to_report\nassert main(['--help']) == 0\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
