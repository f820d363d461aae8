"""What docs/reliability.md promises is held by tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
TABLES = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_every_promise_names_a_test_that_is_there() -> None:
    rows = [line for line in TABLES.splitlines() if re.match(r"\| (?!what happens)[^-]", line)]
    assert len(rows) > 40
    for row in rows:
        held_by = row.split("|")[-2]
        files = ""
        for file, test in re.findall(r"`([\w/]*\.py)?(?:::)?(test_\w+)?`", held_by):
            files = file or files
            content = (TESTS / files).read_text(encoding="utf-8")
            assert not test or f"def {test}(" in content, row
        assert files, row
