"""Tables of figures, in Markdown or for a terminal, made from the records that benchmarks wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cells import (
    AREAS,
    NOTHING,
    STAGES,
    Entry,
    aligned,
    areas_of,
    figure,
    figures_of,
    percent,
    ratio_of,
    run_by,
    size,
)
from benchmarks.record import Record
from stlm_edge.errors import counted
from stlm_edge.metrics import ALL
from train.paper.methods import GPU, METHODS


@dataclass(frozen=True)
class Table:
    """What is shown of one record; `above` are rows before those of all records, with their device as the last cell."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    above: Sequence[Sequence[str]] = ()


MakeTable = Callable[[Record], Table]
"""May raise whatever comes of a record's details that are not as they should be."""


@dataclass(frozen=True)
class TableKind:
    """One kind of table. Attributes: benchmarks: whose records it is made of; any if there are none."""

    title: str
    benchmarks: tuple[str, ...]
    of: MakeTable


KINDS: dict[str, TableKind] = {}
"""By the names that programs and markers in documents give."""


def _kind(name: str, title: str, benchmarks: Sequence[str]) -> Callable[[MakeTable], MakeTable]:
    def add(of: MakeTable) -> MakeTable:
        KINDS[name] = TableKind(title, tuple(benchmarks), of)
        return of

    return add


def to_text(record: Record, *names: str) -> str:
    """Tables of one record with their notes, for a terminal; names are those of `KINDS`."""
    tables = [KINDS[name].of(record) for name in names]
    return "\n\n".join("\n".join([*aligned([one.heads, *one.rows]), "", *one.notes]).rstrip() for one in tables)


@_kind("latency", "Latency", ["latency"])
def _latency(record: Record) -> Table:
    details, input_size = record.details, record.details["input_size"]
    heads = ["", "by", "p50, ms", "p95, ms", "p99, ms", "max, ms", "pictures/s", "speed-up"]
    heads += ["load, s", "first, ms", "memory, MB", "pictures"]
    rows = [
        [
            *(subject["name"], run_by(subject)),
            *figures_of(subject["stages"]["total"], "p50_ms", "p95_ms", "p99_ms", "max_ms"),
            *(figure(subject["frames_per_s"]), ratio_of(subject["speed_up"])),
            *figures_of(subject, "load_s", "first_ms", "running_mb"),
            str(subject["runs"]),
        ]
        for subject in details["subjects"]
    ]
    notes = [
        f"Milliseconds for each picture, from the picture to the verdict; {details['pictures']}, input "
        f"{'several sizes' if input_size is None else size(input_size)}, batch {details['batch']}. All took turns in "
        f"one run; the speed-up is over {details['subjects'][0]['name']}: the median of the turns' ratios, the lowest "
        "and the highest."
    ]
    said = [details["comparison"], *details["conditions"]["warnings"]]
    said += [
        f"{entry['name']}: ESTIMATE by data sheets, not measured: the network would take "
        f"{' to '.join(map(figure, entry['scaled_ms']))} ms on the paper's RTX 3090"
        for entry in details["estimates"]
        if entry["scaled_ms"] is not None
    ]
    return Table(heads, rows, [*notes, *(f"{sentence[0].upper()}{sentence[1:].rstrip('.')}." for sentence in said)])


@_kind("latency-stages", "Latency by stage: p50, p95, ms", ["latency"])
def _stages(record: Record) -> Table:
    rows = []
    for subject in record.details["subjects"]:
        stages = subject["stages"]
        if unknown := set(stages) - set(STAGES):
            raise ValueError(f"stages {sorted(unknown)}, expected some of {STAGES}")
        times = [", ".join(figures_of(stages[key], "p50_ms", "p95_ms")) if key in stages else NOTHING for key in STAGES]
        rows.append([subject["name"], *times])
    notes = ["Infer is the network alone; the others are the host's work and the copies, which total has too."]
    return Table(["", *STAGES], rows, notes)


@_kind("accuracy", "Accuracy of engines", ["accuracy"])
def _accuracy(record: Record) -> Table:
    rows, notes = [], [f"On {record.details['data']}; areas in %, at the pictures' own resolution."]
    for engine in record.details["engines"]:
        drift = engine["drift"] or {}
        forms = {"map_max": ".2g", "map_p99": ".2g", "score_max": ".2g", "rank": ".4f"}
        moved = [NOTHING if drift.get(key) is None else f"{drift[key]:{form}}" for key, form in forms.items()]
        areas = areas_of(engine, (*AREAS, "image_ap"))
        rows.append([engine["name"], run_by(engine), size(engine["input_size"]), *areas, *moved])
    if references := dict.fromkeys(e["drift"]["reference"] for e in record.details["engines"] if e["drift"]):
        notes.append(f"Drift is against {', '.join(references)}.")
    drifts = ["map, max", "map, p99", "score, max", "rank"]
    return Table(["engine", "by", "input", *AREAS.values(), "image AP", *drifts], rows, notes)


@_kind("sizes", "Which size and precision to take", ["sizes"])
def _sizes(record: Record) -> Table:
    rows, gates = [], {True: "passed", False: "REFUSED", None: "not asked"}
    for point in record.details["points"]:
        times, is_best = figures_of(point, "p50_ms", "p95_ms"), "yes" if point["on_frontier"] else "no"
        sides = [size(point["input_size"]), size(point["trained_at"])]
        rows.append(
            [point["name"], point["precision"], *sides, *times, *areas_of(point), gates[point["verified"]], is_best]
        )
    heads = ["setting", "precision", "input", "trained at", "p50, ms", "p95, ms", *AREAS.values()]
    notes = [f"On {record.details['data']}; areas in %.", *record.details["advice"]]
    return Table([*heads, "gate", "on the frontier"], rows, notes)


def is_peer(method: Entry) -> bool:
    """Whether a method of a peers record is not ours."""
    return not str(method["name"]).startswith("STLM")


@_kind("peers", "Beside other methods", ["peers"])
def _peers(record: Record) -> Table:
    methods, rows = record.details["methods"], []
    for method in methods:
        backbone, count = method["backbone"] or NOTHING, method["parameters"]
        # an engine of ours does not know which weights its training began with
        if method["backbone"] is not None and (method["pretrained"] is not None or is_peer(method)):
            backbone += f", {method['pretrained'] or 'random weights'}"
        millions = NOTHING if count is None else f"{count / 1e6:.1f}"
        costs = figures_of(method, "p50_ms", "p95_ms", "running_mb", "model_mb")
        trained = figure(method["train_minutes"])
        areas = [*areas_of(method), percent(method.get("missed_share"), digits=0)]
        rows.append([method["name"], backbone, size(method["input_size"]), millions, trained, *areas, *costs])
    heads = ["method", "backbone", "input", "million parameters", "trained, min", *AREAS.values(), "missed"]
    missed = "Missed: % of the defects that score below what 5 % of the good test pictures reach."
    notes = [f"On {record.details['data']}; areas in %, at the pictures' own resolution. {missed}", *_remarks(methods)]
    return Table([*heads, "p50, ms", "p95, ms", "memory, MB", "model, MB"], rows, notes)


def _remarks(methods: Iterable[Entry]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for method in methods:
        if method["note"]:
            notes.setdefault(method["note"].rstrip("."), []).append(method["name"])
    return [f"{', '.join(names)}: {note}." for note, names in notes.items()]


@_kind("intervals", "By kind of defect: %, with 95 % intervals over parts", ["peers"])
def _intervals(record: Record) -> Table:
    """Each kind for each method; gains over the bar of all kinds together."""
    methods, rows = record.details["methods"], []
    for method in methods:
        for kind, estimates in method.get("kinds", {}).items():
            rows.append([method["name"], kind, *(_interval(estimates[key], sign="") for key in AREAS)])
    for method in methods:
        if gain := method.get("gain", {}).get(ALL):
            name = f"{method['name']}, gain over the bar"
            rows.append([name, ALL, *(_interval(gain[key], sign="+") for key in AREAS)])
    return Table(["method", "defect", *AREAS.values()], rows)


def _interval(estimate: Entry, *, sign: str) -> str:
    value, *bounds = (estimate[key] for key in ("value", "low", "high"))
    low, high = (percent(bound, digits=0, sign=sign) for bound in bounds)
    return NOTHING if value is None else f"{percent(value, sign=sign)} [{low}, {high}]"


@_kind("demo", "The demo", ["demo"])
def _demo(record: Record) -> Table:
    evaluation, inspection = record.details["evaluation"], record.details["inspection"]
    truth, times = inspection["truth"], inspection["latency"]["infer"]
    network = f"the network, in {record.details['precision']}," if "precision" in record.details else "the network"
    alarms, found = counted(truth["false_alarms"], "false alarm"), truth["defects_found"]
    note = (
        f"In %. Of {inspection['frames']} frames that it then inspects, {found + truth['defects_missed']} with a "
        f"defect, it finds {found} and raises {alarms}; {network} takes {figure(times['p50_ms'])} ms (p50) and "
        f"{figure(times['p95_ms'])} ms (p95) a frame."
    )
    rows = [
        [kind, *areas_of(scores)] for kind, scores in (evaluation["kinds"] | {"all": evaluation["overall"]}).items()
    ]
    return Table(["defect", *AREAS.values()], rows, [note])


@_kind("loop", "The camera line's loop", ["loop"])
def _loop(record: Record) -> Table:
    details = record.details
    host, memory, side = details["host"], details["memory"], size(details["input_size"])
    way = f"everything but the network, {size(details['frame_size'])} to {side}"
    growth = f"growth over {memory['frames']} frames, MB of {figure(memory['resident_mb'][0])}"
    rows = [
        _turns(f"frames a second with a network that takes no time, {side}", details["loop"]["frames_per_s"]),
        _turns(f"{way}, p50, ms", host["p50_ms"]),
        _turns(f"{way}, p95, ms", host["p95_ms"]),
        [growth, f"{memory['growth_mb']:.2f}", NOTHING],
    ]
    if "parts" in details:  # not in records of before
        rows.append(_triggered(details["parts"]))
    if "engine" in details:
        engine, start = details["engine"], details["start"]
        rows += [
            _turns(f"frames a second, {engine['backend']} alone", engine["backend_frames_per_s"]),
            _turns("frames a second, the loop around it", engine["loop_frames_per_s"]),
            _turns("ratio of the two", engine["ratio"]),
        ]
        if "cameras" in engine:  # not in records of before
            several = f"{engine['cameras']} cameras that share it"
            rows.append(_turns(f"frames a second, {several}, all together", engine["cameras_frames_per_s"]))
            rows.append(_turns(f"ratio of {several} to it alone", engine["cameras_ratio"]))
        rows += [
            ["resident besides the engine, MB", figure(details["engine_memory"]["besides_engine_mb"]), NOTHING],
            _turns("start to first verdict, s", start["verdict_s"]),
            _turns("start besides opening the engine, s", start["besides_s"]),
        ]
    if "parts_of_the_engine" in details:
        rows.append(_triggered(details["parts_of_the_engine"]))
    for name, network in (("hand_over", "that takes no time"), ("hand_over_of_the_engine", "of the engine")):
        for way, result in (("modbus", "ResultsValid by Modbus"), ("mqtt", "the message by MQTT")):
            if way in (found := details.get(name, {})):
                row = f"trigger by Modbus to {result}, besides the network {network}, p95 of {found['parts']}, ms"
                rows.append(_turns(row, found[way]["besides_network_p95_ms"]))
    if "page" in details:
        pace = f"share of the pace at 60 frames a second with {details['page']['viewers']} viewers"
        rows.append(_turns(pace, details["page"]["ratio"]))
    return Table(["", "median", "turns"], rows)


def _triggered(found: dict[str, Any]) -> list[str]:
    parts = sum(found["verdicts"].values())
    return _turns(f"parts a second, {parts} of them triggered, one result for each", found["parts_per_s"])


def _turns(name: str, found: Mapping[str, Any]) -> list[str]:
    return [name, figure(found["median"]), f"{figure(min(found['turns']))} – {figure(max(found['turns']))}"]


@_kind("training", "A training step", ["training"])
def _training(record: Record) -> Table:
    heads = ["training", "authors' way, s a step", "here", "ratio", "of that the teacher, there and here"]
    heads += ["pictures with a pseudo anomaly", "GB, there and here"]
    details, names = record.details, ("straightforward", "stlm-edge")
    if not any(f"{name} step" in record.measures for name in names):  # the loader alone
        return Table(heads, [])
    settings, ways = details["settings"], [details["ways"][name] for name in names]
    ratio = {"median": details["ratio"], "low": min(details["ratios"]), "high": max(details["ratios"])}
    row = [
        f"{settings['architecture']} at {size(settings['image_size'])}, batch {settings['batch_size']}, teacher "
        f"{settings['teacher']} ({settings['teacher_weights']})",
        *(figure(record.measures[f"{name} step"].median) for name in names),
        ratio_of(ratio),
        ", ".join(figure(way["phases_s"]["teacher"]) for way in ways),
        f"{100 * ways[1]['anomalous_share']:.0f} %",
        ", ".join(figure(way["memory_gb"]) for way in ways),
    ]
    return Table(heads, [row])


@_kind("loader", "The loader", ["loader", "training"])
def _loader(record: Record) -> Table:
    details, heads = record.details, ["loader", "pictures/s", "ratio"]
    rates = {name: measure.median for name, measure in record.measures.items() if measure.unit == "pictures/s"}
    if not rates:  # the steps alone
        return Table(heads, [])
    first = next(iter(rates.values()))
    rows = [[name.removeprefix("loader, "), figure(rate), figure(rate / first)] for name, rate in rates.items()]
    # older records, of the loader alone, have no settings
    settings = details.get("settings") or details | {"image_size": [details["size"]] * 2}
    count = f"{details['pictures']} pictures" if "pictures" in details else "pictures"
    note = f"Pseudo anomalies ({settings['pseudo_anomalies']}) into {count} at {size(settings['image_size'])}"
    return Table(heads, rows, [f"{note}, batches of {settings['batch_size']}."])


@_kind("gpu", "All in one call on a GPU", ["gpu"])
def _gpu(record: Record) -> Table:
    rows, notes = [], []
    for part in record.details["parts"]:
        for subject in part.get("subjects", []):
            times = figures_of(subject, "infer_ms", "p50_ms")
            rows.append([part["name"], subject["name"], *times, ratio_of(subject["speed_up"])])
        if not part.get("subjects"):
            rows.append([part["name"], part["status"], NOTHING, NOTHING, NOTHING])
        if part["reason"]:
            notes.append(f"{part['name']} {part['status']}: {part['reason'].rstrip('.')}.")
    return Table(["part", "", "infer p50, ms", "total p50, ms", "speed-up"], rows, notes)


@_kind("measures", "Measures", [])
def _measures(record: Record) -> Table:
    rows = []
    for name, measure in record.measures.items():
        values, better = measure.values, f"{measure.better}{', exact' * measure.is_exact}"
        turns = f"{figure(min(values))} – {figure(max(values))}" if len(values) > 1 else NOTHING
        rows.append([name, figure(measure.median), turns, measure.unit or NOTHING, better])
    return Table(["measure", "median", "turns", "unit", "better"], rows)


_SUMMED = ("image_auroc", "pixel_auroc", "aupro")
_STLM = next(method for method in METHODS if method.name == "STLM")
_PRINTED = [
    *("STLM, as the paper reports it", "MVTec AD", *(f"{getattr(_STLM.mvtec, metric):.2f}" for metric in _SUMMED)),
    *(f"{_STLM.inference_ms:.0f}", NOTHING, f"{GPU}, PyTorch"),
]
_BACKBONES = {"tf_efficientnet_lite0": "EfficientNet-Lite0"}
"""What people call them, where timm's name is longer."""


@_kind("summary", "What it reaches", ["demo", "sizes", "peers", "latency"])
def _summary(record: Record) -> Table:
    """The demo as a whole, settings on the frontier, some of the peers, of latencies the first and the fastest."""
    details = record.details
    data = re.split("[:,]", str(details.get("data")))[0]  # of "magnetic_tile: 200 good pictures to train, …"
    notes = [
        "Areas in %. The first row is the paper's own, taught by SAM, on other pictures and another device; nothing of "
        "it was measured here. Only rows of one record were timed in turns."
    ]
    if record.benchmark == "demo":
        areas, times = details["evaluation"]["overall"], details["inspection"]["latency"]["infer"]
        precision = f" in {details['precision']}" if "precision" in details else ""
        found = [(f"stlm-tiny, `make demo`, network alone{precision}", "drawn part", areas, times)]
    elif record.benchmark == "sizes":
        found = [(point["name"], data, point, point) for point in details["points"] if point["on_frontier"]]
    elif record.benchmark == "peers":
        methods = _summed_methods(details["methods"])
        found = [(_short_name(method), data, method, method) for method in methods]
        notes += _remarks(methods)
    else:
        subjects = details["subjects"]
        fastest = min(subjects, key=lambda subject: float(subject["stages"]["total"]["p50_ms"]))
        unknown = dict.fromkeys(_SUMMED)
        found = [
            (f"{s['name']}, {s['architecture']} at {size(s['input_size'])}", NOTHING, unknown, s["stages"]["total"])
            for s in (subjects[0], fastest)
        ]
    heads = ["", "on", *(AREAS[metric] for metric in _SUMMED), "p50, ms", "p95, ms"]
    rows = [[name, on, *areas_of(a, _SUMMED), *figures_of(times, "p50_ms", "p95_ms")] for name, on, a, times in found]
    return Table(heads, rows, notes, above=[_PRINTED])


def _summed_methods(methods: Sequence[Entry]) -> list[Entry]:
    """Of peers our fastest engine, and those that find most parts and most of their defects' areas."""
    ours, peers = ([method for method in methods if is_peer(method) is peer] for peer in (False, True))
    shown = [min(ours, key=lambda method: float(method["p50_ms"]))] if ours else []
    for metric in ("image_auroc", "aupro") if peers else ():
        best = max(peers, key=lambda method: float(method[metric] or 0))
        shown += [best] if best not in shown else []
    return shown


def _short_name(method: Entry) -> str:
    name, backbone = str(method["name"]), method["backbone"]
    if not is_peer(method):
        return name.replace("STLM", f"{backbone} at {size(method['input_size'])}", 1)
    return name if backbone is None else f"{name}, {_BACKBONES.get(backbone, backbone)}"
