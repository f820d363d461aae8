"""The part of `benchmarks.import_cost` that runs in a fresh interpreter; it loads nothing that could hide a cost."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

OWN = ("stlm_edge", "train", "export", "runtime", "benchmarks")
_FOLDERS = tuple(f"{__file__.rsplit('/', 2)[0]}/{name}/" for name in OWN)


def tell(module: str) -> None:
    """Import `module` and print as JSON what it took."""
    before = set(sys.modules)
    instructions = _import(module)
    loaded = {name: entry for name, entry in sys.modules.items() if name not in before}
    import json

    tops = {name.partition(".")[0] for name, entry in loaded.items() if getattr(entry, "__spec__", None) is not None}
    content = {
        "own_modules": sum(name.partition(".")[0] in OWN for name in loaded),
        "packages": sorted(tops.difference(OWN, sys.stdlib_module_names)),
        "all_modules": len(loaded),
        "own_instructions": instructions,
    }
    sys.stdout.write(json.dumps(content) + "\n")


if sys.version_info >= (3, 12):

    def _import(module: str) -> int:
        """Import it; returns how many instructions of our own modules that took."""
        instructions, watch = 0, sys.monitoring

        def count(code: CodeType, _offset: int) -> object:
            nonlocal instructions
            if not code.co_filename.startswith(_FOLDERS):
                return watch.DISABLE
            instructions += 1
            return None

        watch.use_tool_id(watch.PROFILER_ID, "import cost")
        watch.register_callback(watch.PROFILER_ID, watch.events.INSTRUCTION, count)
        watch.set_events(watch.PROFILER_ID, watch.events.INSTRUCTION)
        __import__(module)
        watch.set_events(watch.PROFILER_ID, 0)
        return instructions

else:

    def _import(module: str) -> int:
        """Import it; returns how many instructions of our own modules that took."""
        instructions = 0

        def count(_frame: FrameType, event: str, _argument: object) -> object:
            nonlocal instructions
            instructions += event == "opcode"
            return count

        def enter(frame: FrameType, _event: str, _argument: object) -> object:
            if not frame.f_code.co_filename.startswith(_FOLDERS):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return count

        sys.settrace(enter)  # type: ignore[arg-type]  # typeshed wants it to name itself
        __import__(module)
        sys.settrace(None)
        return instructions
