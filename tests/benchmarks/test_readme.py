"""README's tables are those that the committed records give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.record import read
from benchmarks.report import main

from .samples import write_record

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def document(folder: Path, marker: str, below: str = "<!-- end -->") -> Path:
    path = folder / "README.md"
    path.write_text(f"# Before\n\n{marker}\n{below}\n\nafter\n")
    return path


def marker_of(name: str, *paths: str) -> str:
    return f"<!-- table: {name} from {' '.join(paths)} -->"


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md", "docs/runtime.md"])
def test_tables_in_the_repository_are_what_their_records_say(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--readme", str(ROOT / name), "--check"]) == 0, capsys.readouterr().err


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
    write_record(tmp_path, "stages")
    path = document(tmp_path, marker_of("stages", "stages.json"), "an old table\n<!-- end -->")
    assert main(["--readme", str(path)]) == 0
    text = path.read_text()
    assert text.startswith("# Before\n\n<!-- table: stages from stages.json -->\n\n| stage |")
    assert text.endswith("\n<!-- end -->\n\nafter\n")
    assert "an old table" not in text
    assert "| stage 0 | 3.00 | 1.00 | 3.00 | 20.0 | 800 |" in text
    assert (
        "- `python -m benchmarks.stages --json <stages.json>`: Made-up processor (family 1, model 2), 2 cores, avx2; "
        "2026-01-02, commit 0123456 (`stages.json`)"
    ) in text
    assert main(["--readme", str(path), "--check"]) == 0


def test_check_names_what_differs_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(tmp_path, "stages")
    write_record(tmp_path, "pareto")
    path = document(
        tmp_path,
        marker_of("stages", "stages.json"),
        f"<!-- end -->\n{marker_of('pareto', 'pareto.json')}\n<!-- end -->",
    )
    assert main(["--readme", str(path)]) == 0
    content = json.loads((tmp_path / "pareto.json").read_text())
    content["details"]["points"][0]["p50_ms"] = 7.0
    (tmp_path / "pareto.json").write_text(json.dumps(content))
    before = path.read_text()
    assert main(["--readme", str(path), "--check"]) == 1
    said = capsys.readouterr().err
    assert "the table pareto from pareto.json" in said
    assert "stages" not in said
    assert path.read_text() == before


def test_records_of_several_devices_make_one_table_with_their_devices(tmp_path: Path) -> None:
    from .samples import GPU

    write_record(tmp_path, "stages", name="a.json")
    write_record(tmp_path, "stages", name="b.json", device=GPU)
    path = document(tmp_path, marker_of("stages", "a.json", "b.json"))
    assert main(["--readme", str(path)]) == 0
    lines = path.read_text().splitlines()
    assert next(line for line in lines if line.startswith("| stage |")).endswith("| device |")
    assert sum("| Made-up GPU (sm86) on" in line for line in lines) == 4
    assert sum(line.startswith("- `python -m benchmarks.stages") for line in lines) == 2


def test_incomplete_record_is_marked_in_the_document(tmp_path: Path) -> None:
    write_record(tmp_path, "stages", is_complete=False)
    path = document(tmp_path, marker_of("stages", "stages.json"))
    assert main(["--readme", str(path)]) == 0
    assert "**stages.json is INCOMPLETE" in path.read_text()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("no marker at all", "no place for a table"),
        ("    <!-- table: stages from stages.json -->\n    <!-- end -->", "no place for a table"),
        ("<!-- table: weather from stages.json -->\n<!-- end -->", "line 1 asks for the table 'weather'"),
        ("<!-- table: stages -->\n<!-- end -->", "line 1 has '<!-- table: stages -->'"),
        ("<!-- table: stages from none.json -->\n<!-- end -->", "none.json does not exist"),
        ("<!-- table: pareto from stages.json -->\n<!-- end -->", "expected one of benchmarks.pareto"),
        ("<!-- table: stages from stages.json -->\n| a |", "has no '<!-- end -->' for the table that line 1 begins"),
        ("text\n<!-- end -->", "line 2 ends a table that no marker begins"),
        (
            "<!-- table: stages from stages.json -->\n<!-- table: stages from stages.json -->\n<!-- end -->",
            "line 2 begins a table within the one of line 1",
        ),
    ],
)
def test_document_that_cannot_be_renewed_stays_as_it_is(
    tmp_path: Path, lines: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, "stages")
    path = tmp_path / "README.md"
    path.write_text(lines)
    assert main(["--readme", str(path)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert path.read_text() == lines


def test_missing_document_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--readme", str(tmp_path / "none.md")]) == 1
    assert "cannot be read" in capsys.readouterr().err
