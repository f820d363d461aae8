"""The tables of README and docs are those that the committed records give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.record import read
from benchmarks.report import main

from .samples import GPU, write_record

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "docs/results.md"]
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def document(folder: Path, marker: str, below: str = "<!-- end -->") -> Path:
    path = folder / "README.md"
    path.write_text(f"# Before\n\n{marker}\n{below}\n\nafter\n")
    return path


def marker_of(name: str, *paths: str) -> str:
    return f"<!-- table: {name} from {' '.join(paths)} -->"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tables_in_the_repository_are_what_their_records_say(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--renew", str(ROOT / name), "--check"]) == 0, capsys.readouterr().err


def test_prose_of_the_repository_has_no_table_of_figures_beside_them() -> None:
    """A table that nobody renews would go stale."""
    made = False
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith(("<!-- table:", "<!-- end -->")):
            made = line.startswith("<!-- table:")
        assert made or not line.startswith("|"), line


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_committed_records_are_complete_and_of_a_commit(path: Path) -> None:
    record = read(path)
    assert record.is_complete
    assert record.git is not None
    assert not record.commit.endswith("+")


def test_tables_are_made_in_place_and_only_there(tmp_path: Path) -> None:
    write_record(tmp_path, "demo")
    path = document(tmp_path, marker_of("demo", "demo.json"), "an old table\n<!-- end -->")
    assert main(["--renew", str(path)]) == 0
    text = path.read_text()
    assert text.startswith("# Before\n\n<!-- table: demo from demo.json -->\n\n| defect |")
    assert text.endswith("\n<!-- end -->\n\nafter\n")
    assert "an old table" not in text
    assert "| chip | 91.0 | 88.0 | 70.0 | 40.0 |" in text
    assert (
        "- `python -m benchmarks.demo --json <demo.json>`: Made-up processor (family 1, model 2), 2 cores, avx2; "
        "2026-01-02, commit 0123456 (`demo.json`)"
    ) in text
    assert main(["--renew", str(path), "--check"]) == 0


def test_check_names_what_differs_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path, "demo")
    write_record(tmp_path, "sizes")
    path = document(
        tmp_path,
        marker_of("demo", "demo.json"),
        f"<!-- end -->\n{marker_of('sizes', 'sizes.json')}\n<!-- end -->",
    )
    assert main(["--renew", str(path)]) == 0
    content = json.loads((tmp_path / "sizes.json").read_text())
    content["details"]["points"][0]["p50_ms"] = 7.0
    (tmp_path / "sizes.json").write_text(json.dumps(content))
    before = path.read_text()
    assert main(["--renew", str(path), "--check"]) == 1
    said = capsys.readouterr().err
    assert "the table sizes from sizes.json" in said
    assert "demo" not in said
    assert path.read_text() == before


def test_records_of_several_devices_make_one_table_with_their_devices(tmp_path: Path) -> None:
    write_record(tmp_path, "demo", name="a.json")
    write_record(tmp_path, "demo", name="b.json", device=GPU)
    path = document(tmp_path, marker_of("demo", "a.json", "b.json"))
    assert main(["--renew", str(path)]) == 0
    lines = path.read_text().splitlines()
    assert next(line for line in lines if line.startswith("| defect |")).endswith("| measured on |")
    assert sum("| Made-up GPU (sm86) on" in line for line in lines) == 2
    assert sum(line.startswith("- `python -m benchmarks.demo") for line in lines) == 2


def test_incomplete_record_is_marked_in_the_document(tmp_path: Path) -> None:
    write_record(tmp_path, "demo", is_complete=False)
    path = document(tmp_path, marker_of("demo", "demo.json"))
    assert main(["--renew", str(path)]) == 0
    assert "**demo.json is INCOMPLETE" in path.read_text()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("no marker at all", "no place for a table"),
        ("    <!-- table: demo from demo.json -->\n    <!-- end -->", "no place for a table"),
        ("<!-- table: weather from demo.json -->\n<!-- end -->", "line 1 asks for the table 'weather'"),
        ("<!-- table: demo -->\n<!-- end -->", "line 1 has '<!-- table: demo -->' alone"),
        ("<!-- table: demo from none.json -->\n<!-- end -->", "none.json does not exist"),
        ("<!-- table: sizes from demo.json -->\n<!-- end -->", "expected one of benchmarks.sizes"),
        ("<!-- table: demo from demo.json -->\n| a |", "line 1 has '<!-- table: demo from demo.json -->' alone"),
        ("<!-- table: intervals from peers.json -->\n<!-- end -->", "has nothing for the table intervals"),
        ("text\n<!-- end -->", "line 2 has '<!-- end -->' alone"),
        (
            "<!-- table: demo from demo.json -->\n<!-- table: demo from demo.json -->\n<!-- end -->",
            "line 1 has '<!-- table: demo from demo.json -->' alone",
        ),
    ],
)
def test_document_that_cannot_be_renewed_stays_as_it_is(
    tmp_path: Path, lines: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, "demo")
    write_record(tmp_path, "peers")
    path = tmp_path / "README.md"
    path.write_text(lines)
    assert main(["--renew", str(path)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert path.read_text() == lines


def test_missing_document_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--renew", str(tmp_path / "none.md")]) == 1
    assert "cannot be read" in capsys.readouterr().err
