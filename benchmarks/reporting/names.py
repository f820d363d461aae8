"""Which tables there are, by the names that README's markers and the report use."""

from __future__ import annotations

from benchmarks.reporting import loops, quality, speed
from benchmarks.reporting.tables import Kind

KINDS: dict[str, Kind] = {
    "latency": speed.LATENCY,
    "latency-stages": speed.LATENCY_STAGES,
    "latency-estimates": speed.ESTIMATES,
    "accuracy": quality.ACCURACY,
    "pareto": quality.PARETO,
    "alternatives": quality.ALTERNATIVES,
    "stages": speed.STAGES,
    "gpu": speed.GPU,
    "loop": loops.LOOP,
    "training": loops.TRAINING,
    "loader": loops.LOADER,
    "gabor_knn": quality.BAR,
    "demo": quality.DEMO,
    "measures": loops.MEASURES,
}
"""In the report's order; `measures` takes the records of any benchmark."""

BESIDE = {"latency": ("latency-stages", "latency-estimates")}
"""Tables that the report shows below another one of the same record."""
