"""What a signal does while the main thread cannot hear of it."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from runtime import signals
from runtime.signals import StopSignals


def test_second_signal_is_heard_while_a_library_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_ANSWERS_S", 0.01)
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)  # no signal ends the wait for such a lock
    stuck = threading.Event()

    def ask() -> None:
        while not stuck.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.002)

    def release() -> None:
        stuck.set()
        library.pthread_mutex_unlock(lock)

    asking = threading.Thread(target=ask)
    library.pthread_mutex_lock(lock)
    with suppress(KeyboardInterrupt), StopSignals(on_stuck=release) as stop:
        asking.start()
        library.pthread_mutex_lock(lock)
    asking.join()
    assert stuck.is_set() and stop.requested


def test_second_signal_interrupts_what_hears_of_it_and_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_ANSWERS_S", 0.2)
    called: list[int] = []
    with StopSignals(on_stuck=lambda: called.append(1)):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        listener = next(thread for thread in threading.enumerate() if thread.name == "signals")
    listener.join(timeout=10)
    assert called == []
