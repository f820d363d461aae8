"""Questions that are put to a fresh Python process, since a broken native library takes its process with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 60.0

_MARK = "checkup answers "
_LONGEST = 300
"""Characters of a reason: some libraries explain themselves in paragraphs."""

# Modules are looked for where this process does so, not in the current folder, which Python puts first with `-c`.
_QUESTION = """\
import sys
sys.path[0] = {first!r}
import importlib, json
answer = {{}}
try:
    module = importlib.import_module({module!r})
    answer["value"] = {expression}
except BaseException as error:
    names = {{{module!r}.rsplit(".", depth)[0] for depth in range({module!r}.count(".") + 1)}}
    answer["is_missing"] = isinstance(error, ModuleNotFoundError) and error.name in names
    answer["failure"] = type(error).__name__ + ": " + str(error)
print()
print({mark!r} + json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Reply:
    """What came of a question.

    Attributes:
        value: as JSON carries it; None if there is none.
        failure: why there is none, one line; None if there is.
        is_missing: the module is not installed.
    """

    value: Any
    failure: str | None = None
    is_missing: bool = False


def ask(module: str, expression: str, *, timeout_s: float = TIMEOUT_S) -> Reply:
    """Import a module and evaluate an expression in a process of its own.

    Args:
        module: its full name; the expression has it as `module`.
        expression: its value is something that JSON can carry.
    """
    question = _QUESTION.format(first=sys.path[0], module=module, expression=expression, mark=_MARK)
    process = subprocess.Popen(
        [sys.executable, "-c", question],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        said, complained = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _leave_behind(process)
        return Reply(None, f"does not answer within {timeout_s:g} s")
    lines = [line for line in said.splitlines() if line.startswith(_MARK)]
    if lines:
        answer = json.loads(lines[-1].removeprefix(_MARK))
        failure = answer.get("failure")
        return Reply(answer.get("value"), failure and _shortened(failure), answer.get("is_missing", False))
    last = (complained.strip().splitlines() or [""])[-1]
    return Reply(None, _shortened(f"{_ending(process.returncode)}: {last}".removesuffix(": ")))


def _leave_behind(process: subprocess.Popen[str]) -> None:
    """End a process; one that hangs inside a driver does not even end when it is killed, and is not waited for."""
    process.kill()
    try:
        process.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        return


def _ending(code: int) -> str:
    if code >= 0:
        return f"ends its process with exit code {code}"
    try:
        return f"ends its process by {signal.Signals(-code).name}"
    except ValueError:
        return f"ends its process by signal {-code}"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
