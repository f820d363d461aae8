"""Which version and commit of the toolkit this is: of `--version`, and of every figure that is recorded."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from stlm_edge import __version__

_ROOT = Path(__file__).resolve().parents[1]


def version() -> str:
    """The version, with its commit where that is known, such as `0.1.0 (commit 9c83b53, with changes)`."""
    state = git_state() or _installed_state()
    if state is None:
        return __version__
    return f"{__version__} (commit {state['commit'][:10]}{', with changes' if state['changed'] else ''})"


def git_state() -> dict[str, Any] | None:
    """Commit of the toolkit's own repository and whether files differ from it; None where it is not run from one."""
    if not (_ROOT / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _installed_state() -> dict[str, Any] | None:
    """The commit that pip installed from a repository's address (PEP 610), if this is that installation."""
    for found in metadata.distributions(name="stlm-edge", path=[str(_ROOT)]):
        origin = json.loads(found.read_text("direct_url.json") or "{}")
        if commit := origin.get("vcs_info", {}).get("commit_id"):
            return {"commit": commit, "changed": False}
    return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()
