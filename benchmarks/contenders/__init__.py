"""What a latency is measured of: engines as the runtime runs them, and the ways in which PyTorch can run a checkpoint.

`engine_contender` and `network_contender` give what `benchmarks.turns.take_turns` takes. All get the same pictures and
are timed from a frame in memory to its verdict, in the same stages.
"""

from benchmarks.contenders.engine import engine_contender
from benchmarks.contenders.network import network_contender
from benchmarks.contenders.pictures import Pictures

__all__ = ["Pictures", "engine_contender", "network_contender"]
