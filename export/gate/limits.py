"""How far an engine may drift from its network, and what of a drift is too much."""

from __future__ import annotations

from stlm_edge.errors import SpecError
from stlm_edge.sidecar import Drift, Limits

_FEW_BITS = Limits(
    max_map_error=0.25,
    p99_map_error=0.05,
    min_map_correlation=0.998,
    max_score_error=0.1,
    min_rank_correlation=0.9985,
    max_metric_drift=0.5,
)

LIMITS = {
    "fp32": Limits(
        max_map_error=1e-4,
        p99_map_error=1e-4,
        min_map_correlation=1 - 1e-4,
        max_score_error=1e-4,
        min_rank_correlation=1 - 1e-4,
        max_metric_drift=0.01,
    ),
    "fp16": Limits(
        max_map_error=0.06,
        p99_map_error=0.016,
        min_map_correlation=0.99995,
        max_score_error=0.02,
        min_rank_correlation=0.9995,
        max_metric_drift=0.1,
    ),
    "bf16": _FEW_BITS,
    "int8": _FEW_BITS,
}
"""How far an engine of each precision may drift.

What is protected are AUROC and AUPRO; the other limits stand in for them where there are no labels, and sound earlier
where there are few pictures. They were found by rounding all weights and activations of two trained networks to fewer
and fewer bits (`stlm` at 224 x 224 and `stlm-tiny` at 256 x 256, on 40 and 124 pictures of magnetic tiles):

    bits of the mantissa  map max      map p99        1 - map corr.      score        1 - rank corr.  drift
    10, that is FP16      0.006 0.014  0.0015 0.0034  0.000002 0.000005  0.004 0.008  0.0002 0.0001  0.02 0.04
    8                     0.013 0.049  0.0047 0.0120  0.00002  0.00006   0.007 0.028  0.0002 0.0002  0.04 0.09
    7                     0.032 0.097  0.0097 0.0200  0.00009  0.00015   0.020 0.029  0.0008 0.0003  0.21 0.06
    6                     0.080 0.260  0.0170 0.0450  0.0003   0.0011    0.046 0.100  0.0009 0.0010  0.27 0.39
    5                     0.220 0.290  0.0530 0.0800  0.0025   0.0024    0.200 0.100  0.0054 0.0019  1.90 0.68

The last is the largest drift of a metric in points, but for one pair of pictures that changed places. The limits of
FP16 lie four to ten times above what FP16 does there, which leaves room for networks whose maps are less decided (the
pretrained one of the plate: 99th percentile 0.008); its correlation and rank are below what 7 bits do. Those of INT8
lie between 6 and 5 bits. BF16 has 7, too few for the limits of FP16.
"""

_ROUNDING = 1e-9


def limits_of(precision: str) -> Limits:
    """Raises `SpecError` if there is no such precision."""
    if precision not in LIMITS:
        raise SpecError(
            f"the engine's record says precision {precision!r}, expected one of {', '.join(LIMITS)}; build it again "
            "with this version of stlm-edge"
        )
    return LIMITS[precision]


def objections(drift: Drift, limits: Limits, *, pairs: int) -> list[str]:
    """What of a drift is beyond the limits, one sentence each.

    Args:
        pairs: of a good and a defective picture. That one of them changes places is never too much: the two may have
            had the same score but for rounding, and where there are few pictures it moves the image AUROC by points.
            Neither is it that two neighbours in rank do.
    """
    image_limit, rank_limit = _with_one_exchange(drift, limits, pairs=pairs)
    upper = (
        ("largest map error", drift.max_map_error, limits.max_map_error),
        ("99th percentile of the map error", drift.p99_map_error, limits.p99_map_error),
        ("largest score error", drift.max_score_error, limits.max_score_error),
        ("drift of image AUROC in points", drift.image_auroc_drift, image_limit),
        ("drift of pixel AUROC in points", drift.pixel_auroc_drift, limits.max_metric_drift),
        ("drift of AUPRO in points", drift.aupro_drift, limits.max_metric_drift),
    )
    lower = (
        ("correlation of the maps", drift.map_correlation, limits.min_map_correlation),
        ("rank correlation of the scores", drift.score_rank_correlation, rank_limit),
    )
    return [
        f"{drift.backend}: {name} is {value:.3g}, expected at most {limit:g}"
        for name, value, limit in upper
        if value is not None and not abs(value) <= limit
    ] + [
        f"{drift.backend}: {name} is {value:.6f}, expected at least {limit:g}"
        for name, value, limit in lower
        if value is not None and not value >= limit
    ]


def exceptions(drift: Drift, limits: Limits, *, pairs: int) -> list[str]:
    """What of a drift is beyond the limits and no objection, since so few pictures tell no better."""
    image_limit, rank_limit = _with_one_exchange(drift, limits, pairs=pairs)
    moved, rank = drift.image_auroc_drift, drift.score_rank_correlation
    found = []
    if moved is not None and limits.max_metric_drift < abs(moved) <= image_limit:
        found.append(
            f"{drift.backend}: image AUROC may move by {100 / pairs:.3g} points here instead of "
            f"{limits.max_metric_drift:g}, which is one pair of a good and a defective picture that changes places; "
            "more pictures tell more"
        )
    if rank is not None and rank_limit <= rank < limits.min_rank_correlation:
        found.append(
            f"{drift.backend}: the rank correlation may fall to {rank_limit:.6f} here instead of "
            f"{limits.min_rank_correlation:g}, which is two neighbours in rank that change places; more pictures tell "
            "more"
        )
    return found


def _with_one_exchange(drift: Drift, limits: Limits, *, pairs: int) -> tuple[float, float]:
    """The limits of image AUROC and of rank correlation where one exchange of places is never too much."""
    image = max(limits.max_metric_drift, 100 / pairs + _ROUNDING) if pairs else limits.max_metric_drift
    return image, min(limits.min_rank_correlation, _one_exchange(drift.images) - _ROUNDING)


def _one_exchange(count: int) -> float:
    """Spearman's rank correlation of two orders that differ by one exchange of neighbours."""
    return 1 - 12 / (count * (count**2 - 1)) if count > 1 else 1.0
