"""What all tests of benchmarks share."""

from __future__ import annotations

import pytest

from benchmarks import record


@pytest.fixture(autouse=True)
def commit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of quick tests have a made-up commit: asking git for it starts processes."""
    if not any(map(request.node.get_closest_marker, ("heavy", "slow"))):
        monkeypatch.setattr(record, "git_state", lambda: {"commit": "0123456789abcdef", "changed": False})
