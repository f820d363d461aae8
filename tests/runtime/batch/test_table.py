"""`scores.csv` and its checksums: who may write it, what a run goes on with, and what happens if it is taken away."""

from __future__ import annotations

import csv
import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.batch.table import PictureRow, RunSettings, ScoreTable
from stlm_edge.errors import OutputError

SETTINGS = RunSettings(engine_sha256="0", threshold=0.5, root="/parts", area=None, tile=None, overlays="all")


def opened(folder: Path, *, restart: bool = False) -> ScoreTable:
    return ScoreTable(folder, SETTINGS, restart=restart)


def row(name: str, score: float = 0.25) -> PictureRow:
    return PictureRow(name, score, 0.5, score >= 0.5, 1, "good", 0.0125)


def written(folder: Path, count: int = 6) -> list[dict[str, str]]:
    with opened(folder) as table:
        for index in range(count):
            table.add(row(f"{index}.png", index / 10))
    return rows(folder)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "results")
    with opened(tmp_path / "results") as table:
        table.add(row("a.png"))
        for restart in (False, True):
            with pytest.raises(OutputError, match="link is being written by another program"):
                opened(tmp_path / "link", restart=restart)
        table.add(row("b.png"))
    assert [each["path"] for each in rows(tmp_path / "results")] == ["a.png", "b.png"]
    opened(tmp_path / "link").close()


def test_no_flipped_bit_is_gone_on_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = written(tmp_path / "whole")
    data = (tmp_path / "whole/scores.csv").read_bytes()
    seeded, refused, again = random.Random(0), 0, 0
    for _ in range(300):
        folder = tmp_path / "flipped"
        shutil.copytree(tmp_path / "whole", folder)
        flipped = bytearray(data)
        flipped[seeded.randrange(len(data))] ^= 1 << seeded.randrange(8)
        (folder / "scores.csv").write_bytes(flipped)
        try:
            opened(folder).close()
        except OutputError as error:
            refused += 1
            assert "is not as it was written" in str(error) and "\n" not in str(error)
            assert (folder / "scores.csv").read_bytes() == flipped
        else:
            again += 1
            assert rows(folder) == whole[:-1]
        shutil.rmtree(folder)
    assert refused > 150 and again > 20
    assert caplog.text.count("it is inspected again") >= again / 2


def test_rows_that_a_person_removes_are_inspected_again_and_order_is_free(tmp_path: Path) -> None:
    written(tmp_path)
    lines = (tmp_path / "scores.csv").read_text().splitlines(keepends=True)
    (tmp_path / "scores.csv").write_text("".join([lines[0], *reversed(lines[3:])]))
    with opened(tmp_path) as table:
        assert table.done == {"2.png", "3.png", "4.png", "5.png"}


def test_table_without_checksums_is_looked_at_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = written(tmp_path)
    (tmp_path / ".scores.csv.crc32").unlink()
    caplog.set_level(logging.INFO)
    opened(tmp_path).close()
    assert "scores.csv has no checksums beside it" in caplog.text
    assert rows(tmp_path) == whole
    (tmp_path / ".scores.csv.crc32").unlink()
    text = (tmp_path / "scores.csv").read_text()
    (tmp_path / "scores.csv").write_text(text.replace("2.png,0.2,", "2.png,0.z,"))
    with pytest.raises(OutputError, match=r"a row of '2\.png' that is not as it was written"):
        opened(tmp_path)


@pytest.mark.parametrize("cells", ['"%s' % ("x" * 140_000), "a," + "y" * 140_000 + ",,,,,,", "a,1,0.5,True,1,,1e999,"])
def test_row_of_another_kind_is_one_line(tmp_path: Path, cells: str) -> None:
    written(tmp_path)
    text = (tmp_path / "scores.csv").read_text()
    (tmp_path / "scores.csv").write_text(text.replace("0.png", f"{cells}\n0.png", 1))
    with pytest.raises(OutputError, match="is not as it was written") as caught:
        opened(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("record", ['{"a":' * 30_000, "[" * 100_000, '{"threshold": NaN', "9" * 5000])
def test_record_of_another_kind_is_one_line(tmp_path: Path, record: str) -> None:
    written(tmp_path)
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(OutputError, match=r"run\.json") as caught:
        opened(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder / "scores.csv").unlink(),
        lambda folder: (folder / "scores.csv").rename(folder / "yesterday.csv"),
        shutil.rmtree,
        lambda folder: folder.rename(folder.with_name("away")),
    ],
    ids=["deleted", "moved", "folder deleted", "folder moved"],
)
def test_table_that_is_taken_away_is_written_anew_in_whole(
    tmp_path: Path, act: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "results"
    with opened(folder) as table:
        for index in range(3):
            table.add(row(f"{index}.png"))
        act(folder)
        for index in range(3, 6):
            table.add(row(f"{index}.png"))
        assert [each["path"] for each in rows(folder)] == [f"{index}.png" for index in range(6)]
        with pytest.raises(OutputError, match="is being written by another program"):
            opened(folder)
    assert json.loads((folder / "run.json").read_text())["engine_sha256"] == "0"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    with opened(folder) as table:
        assert len(table.done) == 6


@pytest.mark.parametrize("way", ["another file", "same file"])
def test_table_that_another_program_changes_is_left_to_it(tmp_path: Path, way: str) -> None:
    path = tmp_path / "scores.csv"
    with opened(tmp_path) as table:
        table.add(row("0.png"))
        text = path.read_text() + "by hand,0.1,0.5,False,0,,0.1,\n"
        if way == "another file":
            (tmp_path / "edited").write_text(text)
            (tmp_path / "edited").replace(path)
        else:
            path.write_text(text)
        with pytest.raises(OutputError, match="was changed by another program while it was written; move it away"):
            table.add(row("1.png"))
    assert path.read_text() == text


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("record", ['{"data": "/parts", "seed": 0}', "{}", "[]", "{", "\0"])
def test_record_of_another_program_is_left_alone(tmp_path: Path, record: str, restart: bool) -> None:
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(OutputError, match=r"run\.json .*; give another folder, or move that file away"):
        opened(tmp_path, restart=restart)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == record


def test_record_of_another_program_beside_a_table_is_not_removed(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "run.json").write_text('{"data": "/parts"}')
    with pytest.raises(OutputError, match="is of another program"):
        opened(tmp_path, restart=True)
    assert (tmp_path / "run.json").exists() and (tmp_path / "scores.csv").exists()


def test_new_folder_that_nothing_can_be_written_to_is_not_left_behind(
    tmp_path: Path, limit_files: Callable[[int], None]
) -> None:
    (tmp_path / "old").mkdir()
    limit_files(0)
    for folder in (tmp_path / "new" / "deep", tmp_path / "old"):
        with pytest.raises(OutputError, match=r"File too large.*ulimit -f"):
            opened(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
