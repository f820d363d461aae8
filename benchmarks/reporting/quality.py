"""Tables of how good something is, with what it costs beside it."""

from __future__ import annotations

from typing import Any

from benchmarks.record import Record
from benchmarks.reporting.tables import NOTHING, Kind, Row, figure, percent, rounded, size, words
from train.paper.figures import METHODS, Accuracy

_AREAS = ("image_auroc", "pixel_auroc", "aupro", "pixel_ap")
_HEADS = ("image AUROC", "pixel AUROC", "AUPRO", "pixel AP")


def _areas(entry: dict[str, Any]) -> Row:
    return tuple(percent(entry[metric]) for metric in _AREAS)


def _accuracy(record: Record) -> list[Row]:
    return [
        (
            entry["name"],
            f"{words(entry['library'])}, {words(entry['precision'])}",
            size(entry["input_size"]),
            *_areas(entry),
            percent(entry["image_ap"]),
            *_drift(entry["drift"]),
        )
        for entry in record.details["engines"]
    ]


def _drift(drift: dict[str, Any] | None) -> Row:
    if drift is None:
        return (NOTHING,) * 4
    small = tuple(
        NOTHING if drift[name] is None else f"{drift[name]:.2g}" for name in ("map_max", "map_p99", "score_max")
    )
    return (*small, NOTHING if drift["rank"] is None else f"{drift['rank']:.4f}")


def _accuracy_notes(record: Record) -> list[str]:
    engines = record.details["engines"]
    references = dict.fromkeys(entry["drift"]["reference"] for entry in engines if entry["drift"] is not None)
    notes = [f"On {record.details['data']}; areas in %, at the pictures' own resolution."]
    return notes + ([f"Drift is against {', '.join(references)}."] if references else [])


def _pareto(record: Record) -> list[Row]:
    return [
        (
            entry["name"],
            entry["precision"],
            size(entry["input_size"]),
            size(entry["trained_at"]),
            figure(entry["p50_ms"]),
            figure(entry["p95_ms"]),
            *_areas(entry),
            {True: "passed", False: "REFUSED", None: "not asked"}[entry["verified"]],
            "yes" if entry["on_frontier"] else "no",
        )
        for entry in record.details["points"]
    ]


def _pareto_notes(record: Record) -> list[str]:
    return [f"On {record.details['data']}; areas in %.", *record.details["advice"]]


def _alternatives(record: Record) -> list[Row]:
    return [
        (
            entry["name"],
            _backbone(entry),
            size(entry["input_size"]),
            NOTHING if entry["parameters"] is None else f"{entry['parameters'] / 1e6:.1f}",
            figure(entry["train_minutes"]),
            *_areas(entry),
            *(figure(entry[name]) for name in ("p50_ms", "p95_ms", "running_mb", "model_mb")),
        )
        for entry in record.details["methods"]
    ]


def _backbone(entry: dict[str, Any]) -> str:
    """With the weights that it began with; of an engine of ours those are not known."""
    if entry["backbone"] is None:
        return NOTHING
    if entry["pretrained"] is None and not is_anomalib(entry):
        return str(entry["backbone"])
    return f"{entry['backbone']}, {entry['pretrained'] or 'random weights'}"


def is_anomalib(entry: dict[str, Any]) -> bool:
    """Whether a method of an alternatives record is not one of ours."""
    return str(entry["library"]).startswith("anomalib")


def _alternatives_notes(record: Record) -> list[str]:
    notes: dict[str, list[str]] = {}
    for entry in record.details["methods"]:
        if entry["note"]:
            notes.setdefault(entry["note"].rstrip("."), []).append(entry["name"])
    said = [f"{', '.join(names)}: {note}." for note, names in notes.items()]
    return [f"On {record.details['data']}; areas in %, at the pictures' own resolution.", *said]


def _bar(record: Record) -> list[Row]:
    """The models by kind of defect, with the bar and the gain over all kinds below; without models the bar by kind."""
    rows = record.details["rows"]
    main = "model" if any(row["method"] == "model" for row in rows) else "bar"
    shown = [row for row in rows if row["method"] == main]
    shown += [row for row in rows if row["kind"] == "all" and row["method"] != main]
    return [(_title_of(row), *(_estimate(row["estimates"][m], row["method"]) for m in _AREAS)) for row in shown]


def _title_of(row: dict[str, Any]) -> str:
    if row["kind"] != "all":
        return str(row["kind"])
    return {"model": "all", "bar": "Gabor filters, all", "gain": "gain"}[row["method"]]


def _estimate(estimate: dict[str, Any], method: str) -> str:
    if estimate["value"] is None:
        return NOTHING
    sign = "+" if method == "gain" else ""
    low, high = (
        NOTHING if bound is None else rounded(100 * bound, digits=0, sign=sign)
        for bound in (estimate["low"], estimate["high"])
    )
    text = f"{rounded(100 * estimate['value'], digits=1, sign=sign)} [{low}, {high}]"
    return text if estimate["spread"] is None or sign else f"{text} ± {100 * estimate['spread']:.1f}"


def _bar_notes(record: Record) -> list[str]:
    details = record.details
    everything = next(row for row in details["rows"] if row["kind"] == "all")
    return [
        f"In %, with 95 % intervals over {everything['groups']} parts in {everything['images']} pictures of "
        f"{details['category']}; {len(details['models'])} trained model{'' if len(details['models']) == 1 else 's'} "
        f"beside Gabor filters and nearest neighbours, which took {details['bar_cpu_s']:.0f} CPU seconds."
    ]


def _demo(record: Record) -> list[Row]:
    evaluation = record.details["evaluation"]
    return [(kind, *_areas(scores)) for kind, scores in (*evaluation["kinds"].items(), ("all", evaluation["overall"]))]


def _demo_notes(record: Record) -> list[str]:
    inspection = record.details["inspection"]
    truth, total = inspection["truth"], inspection["latency"]["infer"]
    defects = truth["defects_found"] + truth["defects_missed"]
    return [
        f"In %. Of {inspection['frames']} frames that it then inspects, {defects} with a defect, it finds "
        f"{truth['defects_found']} and raises {truth['false_alarms']} false "
        f"alarm{'' if truth['false_alarms'] == 1 else 's'}; the network takes {figure(total['p50_ms'])} ms (p50) and "
        f"{figure(total['p95_ms'])} ms (p95) a frame."
    ]


def paper_rows() -> list[Row]:
    """The paper's methods on each of its data sets, most accurate pixels first."""

    def cells(found: Accuracy) -> Row:
        values = [getattr(found, metric) for metric in _AREAS]
        return tuple(NOTHING if value is None else f"{value:.2f}" for value in values)

    named = [("MVTec AD", method, method.mvtec) for method in METHODS]
    named += [("VisA", method, method.visa) for method in METHODS if method.visa is not None]
    named += [("DAGM", method, method.dagm) for method in METHODS if method.dagm is not None]
    data_sets = list(dict.fromkeys(data for data, _, _ in named))
    named.sort(key=lambda entry: (data_sets.index(entry[0]), -(entry[2].pixel_auroc or 0)))
    return [
        (
            method.name,
            data,
            *cells(found),
            NOTHING if method.inference_ms is None or found is not method.mvtec else f"{method.inference_ms:.0f}",
            f"{method.parameters_m:.2f}",
        )
        for data, method, found in named
    ]


PAPER_HEADS = ("method", "data", "image AUROC", "pixel AUROC", "PRO", "AP", "ms", "million parameters")

ACCURACY = Kind(
    "Accuracy of engines",
    ("accuracy",),
    ("engine", "by", "input", *_HEADS, "image AP", "map, max", "map, p99", "score, max", "rank"),
    _accuracy,
    _accuracy_notes,
)
PARETO = Kind(
    "Which setting to take",
    ("pareto",),
    ("setting", "precision", "input", "trained at", "p50, ms", "p95, ms", *_HEADS, "gate", "on the frontier"),
    _pareto,
    _pareto_notes,
)
ALTERNATIVES = Kind(
    "Beside other methods",
    ("alternatives",),
    (
        *("method", "backbone", "input", "million parameters", "trained, min"),
        *_HEADS,
        *("p50, ms", "p95, ms", "memory, MB", "model, MB"),
    ),
    _alternatives,
    _alternatives_notes,
)
BAR = Kind("The bar for a trained model", ("gabor_knn",), ("defect", *_HEADS), _bar, _bar_notes)
DEMO = Kind("The demo", ("demo",), ("defect", *_HEADS), _demo, _demo_notes)
