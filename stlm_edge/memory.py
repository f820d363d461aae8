"""Telling that memory ran out, whoever says so: Python, C++, PyTorch, CUDA, OpenCV, ONNX Runtime or the kernel."""

from __future__ import annotations

import re

_WORDS = re.compile(
    "out of ?memory|(not enough|insufficient) memory|bad[_ ]alloc|alloc_failed|failed to allocate"
    "|can('t|not) alloc"
    "|could not create a (primitive(?! descriptor)|memory object)"  # oneDNN
    "|failed to map segment from shared object"  # a library that is loaded
)
"""Apart from Python's own exception there are only words to tell it by."""

_LONGEST = 200


def ran_out(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, says that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        said = f"{type(seen).__name__}: {seen}".lower()
        if isinstance(seen, MemoryError) or _WORDS.search(said):
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False


_NO_THREAD = re.compile("can't start new thread|resource temporarily unavailable")
"""By Python and by C++, where the system refuses one."""

NO_THREAD = (
    "found no room for another thread, expected a few; allow more (ulimit -u and -v, TasksMax= of the service, the "
    "container's limit) or end other programs"
)


def lacks_threads(error: BaseException) -> bool:
    """Whether `error` says that the system gave no thread."""
    return _NO_THREAD.search(str(error).lower()) is not None


def explained(error: BaseException) -> str | None:
    """One line for an error that nobody nearer could say more about; None if it is about neither memory nor threads."""
    said = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
    if lacks_threads(error):
        return NO_THREAD
    if not ran_out(error):
        return None
    if "cuda" in said.lower():
        return f"memory of the GPU ran out ({said}); end other programs that use it, or take one with more"
    return (
        f"memory ran out ({said}); allow more (ulimit -v, MemoryMax= of the service, the container's limit), end other "
        "programs that use it, or take a machine with more"
    )
