"""A threshold from good pictures that nothing was trained on, for which no defect is needed, or from labelled ones."""

from stlm_edge.thresholds.change import ThresholdChange, Verdicts, expectations, promise, threshold_change
from stlm_edge.thresholds.choice import FEW_PARTS, Method, choose, f1_optimal, with_normal_scores, with_unclear
from stlm_edge.thresholds.count import CONFIDENCE, false_alarm_interval

__all__ = [
    "CONFIDENCE",
    "FEW_PARTS",
    "Method",
    "ThresholdChange",
    "Verdicts",
    "choose",
    "expectations",
    "f1_optimal",
    "false_alarm_interval",
    "promise",
    "threshold_change",
    "with_normal_scores",
    "with_unclear",
]
