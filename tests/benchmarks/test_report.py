"""The page shows every record, says where each figure is from, and asks nothing of anybody."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.report import main
from benchmarks.reporting.names import KINDS
from benchmarks.reporting.tables import figure, percent, rounded

from . import samples
from .samples import write_record

COMMITTED = sorted((Path(__file__).resolve().parents[2] / "benchmarks" / "results").glob("*.json"))


class _Checker(HTMLParser):
    """Whether all that opens is closed, and what the page would load."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [
            f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    assert all(entry.startswith("a href=#") for entry in checker.loaded), checker.loaded
    assert not re.search(r"url\(|@import|<script", text)
    return text


def made(tmp_path: Path, *paths: Path) -> tuple[str, str]:
    """Page and Markdown of some records."""
    page, document = tmp_path / "report.html", tmp_path / "report.md"
    assert main([*map(str, paths), "-o", str(page), "--markdown", str(document)]) == 0
    return page_of(page), document.read_text(encoding="utf-8")


def test_committed_records_make_a_page(tmp_path: Path) -> None:
    page, document = made(tmp_path, *COMMITTED)
    for path in COMMITTED:
        assert f"({path.name})" in page
        assert f"(`{path.name}`)" in document


@pytest.mark.parametrize("benchmark", samples.DETAILS)
def test_every_table_and_figure_says_where_it_is_from(tmp_path: Path, benchmark: str) -> None:
    page, document = made(tmp_path, write_record(tmp_path, benchmark))
    section = page[page.index("</section>") :]  # the first one is figure 1
    shown = section.count("<table") + section.count("<figure>")
    assert shown >= 1
    origin = f"<code>python -m benchmarks.{benchmark} --json &lt;{benchmark}.json&gt;</code>"
    assert section.count(origin) == shown
    assert section.count("Made-up processor (family 1, model 2), 2 cores, avx2; 2026-01-02, commit 0123456") == shown
    assert "INCOMPLETE" not in page
    assert f"(`{benchmark}.json`)" in document


def test_figures_are_pictures_that_can_be_read_out(tmp_path: Path) -> None:
    page, _ = made(tmp_path, *(write_record(tmp_path, benchmark) for benchmark in samples.DETAILS))
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 8  # figure 1 twice, two of latency, of pareto and of stages
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        assert root.attrib["role"] == "img"
        assert len(root.attrib["aria-label"]) > 20
        for entry in root.iter("text"):
            assert -1 <= float(entry.attrib["x"]) <= width + 1, entry.text
            assert 0 < float(entry.attrib["y"]) <= height, entry.text


def test_devices_and_data_sets_have_panels_of_their_own_beside_the_paper(tmp_path: Path) -> None:
    here = write_record(tmp_path, "alternatives")
    there = write_record(tmp_path, "alternatives", name="there.json", device=samples.GPU)
    page, _ = made(tmp_path, here, there)
    first = page[: page.index("</section>")]
    panels = re.findall(r"<figure>.*?</figure>", first, re.DOTALL)
    assert len(panels) == 3
    assert "NVIDIA GeForce RTX 3090" in panels[0]
    assert "nothing of it was measured here" in panels[0]
    assert ["Made-up GPU" in panel for panel in panels] == [False, True, False]
    areas = {hint: float(r) ** 2 for r, hint in re.findall(r'r="([\d.]+)"><title>(.*?)</title>', panels[2])}
    patch, stlm = (
        next(area for hint, area in areas.items() if hint.startswith(name)) for name in ("PatchCore", "STLM")
    )
    assert patch / stlm == pytest.approx(11.7, rel=0.1)


def test_accuracy_and_latency_of_one_engine_on_one_device_make_a_point(tmp_path: Path) -> None:
    accuracy, latency = write_record(tmp_path, "accuracy"), write_record(tmp_path, "latency")
    page, _ = made(tmp_path, accuracy, latency)
    assert "tiny int8: 88.0 % in 10.0 ms, 1.0 M parameters" in page
    elsewhere = write_record(tmp_path, "latency", device=samples.GPU)
    page, _ = made(tmp_path, accuracy, elsewhere)
    assert "Measured here" not in page


def test_incomplete_record_is_shown_with_a_loud_mark(tmp_path: Path) -> None:
    page, document = made(tmp_path, write_record(tmp_path, "latency", is_complete=False))
    assert page.count('<p class="loud">') == 3  # the section and its two figures
    assert "**latency.json is INCOMPLETE" in document


def test_incomplete_record_without_details_shows_what_it_has_measured(tmp_path: Path) -> None:
    details = {"pictures": "4 drawn parts"}
    page, _ = made(tmp_path, write_record(tmp_path, "latency", details, is_complete=False))
    assert "something total p50" in page
    assert '<p class="loud">' in page


def test_records_of_other_benchmarks_are_shown_by_their_measures(tmp_path: Path) -> None:
    page, document = made(tmp_path, write_record(tmp_path, "counts", {}))
    assert "counts (counts.json)" in page
    assert "| something total p50 | 2.00 | 1.00 – 4.00 | ms | lower |" in document


def test_text_of_a_record_is_text_on_the_page(tmp_path: Path) -> None:
    latency, pareto, stages = samples.latency(), samples.pareto(), samples.stages()
    for entries in (latency["contenders"], pareto["points"], stages["stages"]):
        entries[1]["name"] = "<b>a & b</b>"
    details = {"latency": latency, "pareto": pareto, "stages": stages}
    page, _ = made(tmp_path, *(write_record(tmp_path, name, details[name]) for name in details))
    assert "<b>" not in page
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in page


def test_every_table_has_a_record_that_it_is_made_of(tmp_path: Path) -> None:
    """By a name that a marker in a document gives."""
    paths = {json.loads(path.read_text())["benchmark"]: path for path in COMMITTED}
    paths |= {benchmark: write_record(tmp_path, benchmark) for benchmark in samples.DETAILS}
    for name, kind in KINDS.items():
        source = paths[kind.benchmarks[0] if kind.benchmarks else "stages"]
        document = tmp_path / "README.md"
        document.write_text(f"<!-- table: {name} from {source} -->\n<!-- end -->\n")
        assert main(["--readme", str(document)]) == 0
        assert document.read_text().count("\n| ") >= 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ('{"a": 1}', "no benchmark's record"),
        ('{"schema_version": 99, "benchmark": "latency"}', "schema version 99"),
    ],
)
def test_file_that_is_no_record_is_one_line(
    tmp_path: Path, content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text(content)
    assert main([str(tmp_path / "x.json"), "-o", str(tmp_path / "report.html")]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("benchmark", samples.DETAILS)
def test_complete_record_that_lacks_what_is_shown_is_one_line(
    tmp_path: Path, benchmark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_record(tmp_path, benchmark, {"data": "made-up tiles"})
    assert main([str(path), "-o", str(tmp_path / "report.html")]) == 1
    error = capsys.readouterr().err
    assert f"{path} lacks what is to be shown of benchmarks.{benchmark}" in error
    assert error.count("\n") == 1


def test_no_records_and_no_place_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", str(tmp_path / "report.html")]) == 1
    assert "no records were given" in capsys.readouterr().err
    record = write_record(tmp_path, "stages")
    assert main([str(record), "-o", str(record / "report.html")]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["x.json"], ["--check", "-o", "x.html"], ["x.json", "--readme", "README.md"]]
)
def test_what_makes_no_sense_is_wrong_usage(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_figures_have_three_digits_and_no_exponent() -> None:
    assert [figure(value) for value in (None, 0.0123, 8.6, 99.96, 1234.5)] == ["–", "0.0123", "8.60", "100", "1234"]
    assert percent(0.7955) == "79.6"
    assert rounded(0.5, digits=1, sign="+") == "+0.5"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom benchmarks.report import main\nassert main(['--help']) == 0\n"
        "assert not {'torch', 'cv2', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
