"""What a program's import costs, in figures that are the same in every run: modules, packages, bytecode instructions.

Times of an import scatter by a factor of two on a shared machine, and not every machine counts the instructions of its
processor for a program. So those of Python are counted: it is asked to tell of each one that the toolkit's own modules
execute. What others' modules execute depends on their versions and is told by how many there are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImportCost:
    """What importing a module loads and executes.

    Attributes:
        own_modules: of this toolkit.
        packages: of others, by their top-level names, sorted.
        all_modules: with those of Python's library.
        own_instructions: bytecode instructions that the toolkit's own modules execute meanwhile. They depend on
            Python's minor version, since its bytecode does.
    """

    own_modules: int
    packages: tuple[str, ...]
    all_modules: int
    own_instructions: int


def import_cost(module: str) -> ImportCost:
    """Import `module` in a fresh interpreter and count.

    The interpreter leaves out what this one's installation loads at its start, which would hide a part.

    Raises `subprocess.CalledProcessError` if the import fails.
    """
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, sys.path)]
    code = f"import sys; sys.path[:] = {paths!r}; from benchmarks.import_trace import tell; tell({module!r})"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return ImportCost(**found | {"packages": tuple(found["packages"])})
