"""Tables of figures in Markdown, made from the records that benchmarks wrote: one kind of table for each benchmark.

A kind says which entries of a record make its rows, and for each column its head and how an entry's cell is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import reduce
from operator import getitem, itemgetter
from pathlib import Path
from textwrap import wrap
from typing import Any

from benchmarks.record import Record, read
from stlm_edge.errors import DataError
from train.paper.figures import GPU, METHODS, SOURCE, Accuracy

NOTHING = "–"
"""In place of a figure that was not or cannot be measured."""

_STAGES = ("prepare", "upload", "infer", "download", "decide", "total")
"""Of the way from a frame in memory to its verdict."""

INCOMPLETE = "INCOMPLETE: this run broke off, so figures are missing"
"""The mark of a record whose benchmark was interrupted or failed."""

Entry = Any
"""A row before it is written: most often a JSON object of a record's details."""

Columns = tuple[tuple[str, Callable[[Entry], str]], ...]
"""Head and cell of each."""


@dataclass(frozen=True)
class Origin:
    """A record and the file that it was read from."""

    path: Path
    record: Record

    def __str__(self) -> str:
        """Command, device, day and commit of the figures."""
        record = self.record
        commit = record.commit.removesuffix("+")
        words = commit if record.git is None else f"commit {commit}"
        changed = ", with changed files" if record.commit.endswith("+") else ""
        last = "" if record.made_by_commit is None else f"; the last that could make it is {record.made_by_commit[:7]}"
        return f"`{record.command}`: {record.device}; {record.date[:10]}, {words}{changed}{last} (`{self.path.name}`)"

    @contextmanager
    def read_as_expected(self) -> Iterator[None]:
        """Around code that takes a record's details for granted. Raises `DataError` where something is amiss."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.path} lacks what is to be shown of benchmarks.{self.record.benchmark} "
                f"({type(error).__name__}: {error}); measure again with this version of stlm-edge"
            ) from None


@dataclass(frozen=True)
class TableKind:
    """How one kind of table is made.

    Attributes:
        benchmarks: whose records it is made of; any if there are none.
        entries, notes: of one record. They may raise whatever comes of details that are not as they should be.
        above: entries before those of the records.
        names_device: rows of several devices get another column that says so.
    """

    title: str
    benchmarks: tuple[str, ...]
    entries: Callable[[Record], Iterable[Entry]]
    columns: Columns
    notes: Callable[[Record], list[str]] = lambda _: []
    above: tuple[Entry, ...] = ()
    names_device: bool = True


def origins(paths: Iterable[Path]) -> list[Origin]:
    """Records in the order of their paths. Raises `DataError` if one cannot be read, or if there is none."""
    found = [Origin(path, read(path)) for path in paths]
    if not found:
        raise DataError("no records were given, expected the JSON of benchmarks such as benchmarks/results/*.json")
    return found


def to_markdown(kind: TableKind, sources: Sequence[Origin]) -> str:
    """One table of all records, its notes, and for each record a line on where it is from; ends with a line feed.

    Raises:
        DataError: if a record is another benchmark's, or lacks what the table shows.
    """
    columns, notes = kind.columns, list[str]()
    rows = [[cell(entry) for _, cell in columns] for entry in kind.above]
    has_devices = kind.names_device and len({str(source.record.device) for source in sources}) > 1
    for source in sources:
        record = source.record
        if kind.benchmarks and record.benchmark not in kind.benchmarks:
            raise DataError(
                f"{source.path} is a record of benchmarks.{record.benchmark}, expected one of "
                f"benchmarks.{' or benchmarks.'.join(kind.benchmarks)}; name another file or another table"
            )
        with source.read_as_expected():
            device = [str(record.device)] if has_devices else []
            rows += [[*(cell(entry) for _, cell in columns), *device] for entry in kind.entries(record)]
            notes += [sentence for sentence in kind.notes(record) if sentence not in notes]
    heads = [head for head, _ in columns] + ["device"] * has_devices
    lines = [_line(heads), "|" + "---|" * len(heads), *map(_line, rows), ""]
    if notes:
        lines += [*wrap(" ".join(notes), width=120, break_on_hyphens=False), ""]
    for source in sources:
        if not source.record.is_complete:
            lines += [f"**{source.path.name} is {INCOMPLETE}.**", ""]
    return "\n".join([*lines, *(f"- {source}" for source in sources)]) + "\n"


def to_text(kind: TableKind, record: Record) -> list[str]:
    """The table of one record and its notes as lines for a terminal."""
    rows = [[head for head, _ in kind.columns], *([cell(e) for _, cell in kind.columns] for e in kind.entries(record))]
    return [*aligned(rows), "", *kind.notes(record)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns, the first one to the left and the others to the right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


# How figures are written


def figure(value: float | None) -> str:
    """With three significant digits, and all those before the point."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}".removesuffix(".")


def rounded(value: float, *, digits: int, sign: str = "") -> str:
    """With so many digits behind the point; a five is rounded up, as one does by hand, whatever its bits are."""
    exact = Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return f"{exact:{sign}}"


def percent(share: float | None) -> str:
    """A share of 1 as percent with one decimal."""
    return NOTHING if share is None else rounded(100 * share, digits=1)


def spread(value: float, low: float, high: float) -> str:
    """A figure and between which two it was."""
    return f"{figure(value)} [{figure(low)}, {figure(high)}]"


def size(height_width: Sequence[int] | None) -> str:
    """Height and width."""
    return NOTHING if height_width is None else " x ".join(map(str, height_width))


# Cells of columns


def _of(*keys: str, to: Callable[[Any], str] = figure) -> Callable[[Entry], str]:
    """What stands in an entry below one key after the other, written by `to`."""
    return lambda entry: to(reduce(getitem, keys, entry))


def _all(to: Callable[[Any], str] = figure, **heads: str) -> Columns:
    """Columns of entries' values, heads by key."""
    return tuple((head, _of(key, to=to)) for key, head in heads.items())


def _cells(*heads: str) -> Columns:
    """Columns of entries that are cells already."""
    return tuple((head, itemgetter(place)) for place, head in enumerate(heads))


def _words(text: object) -> str:
    return str(text) if text else NOTHING


def _by(entry: Entry) -> str:
    return f"{_words(entry['library'])}, {_words(entry['precision'])}"


AREAS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO", "pixel_ap": "pixel AP"}
_NAME = ("", _of("name", to=str))
_INPUT = ("input", _of("input_size", to=size))
_AREA_COLUMNS = _all(percent, **AREAS)
_TIMES = _all(p50_ms="p50, ms", p95_ms="p95, ms")


# Latency


def _latency_notes(record: Record) -> list[str]:
    details, input_size = record.details, record.details["input_size"]
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
    return [*notes, *(f"{sentence[0].upper()}{sentence[1:].rstrip('.')}." for sentence in said)]


def _speed_up(ratio: dict[str, float] | None) -> str:
    return NOTHING if ratio is None else spread(ratio["median"], ratio["low"], ratio["high"])


def _stages_entries(record: Record) -> Iterator[Entry]:
    for subject in record.details["subjects"]:
        if unknown := set(subject["stages"]) - set(_STAGES):
            raise ValueError(f"stages {sorted(unknown)}, expected some of {_STAGES}")
        yield {"name": subject["name"], **dict.fromkeys(_STAGES), **subject["stages"]}


def _stage(times: dict[str, float] | None) -> str:
    return NOTHING if times is None else f"{figure(times['p50_ms'])}, {figure(times['p95_ms'])}"


LATENCY = TableKind(
    "Latency",
    ("latency",),
    lambda record: record.details["subjects"],
    (
        _NAME,
        ("by", _by),
        *((f"{name}, ms", _of("stages", "total", f"{name}_ms")) for name in ("p50", "p95", "p99", "max")),
        ("pictures/s", _of("frames_per_s")),
        ("speed-up", _of("speed_up", to=_speed_up)),
        *_all(load_s="load, s", first_ms="first, ms", running_mb="memory, MB"),
        ("pictures", _of("runs", to=str)),
    ),
    _latency_notes,
)
LATENCY_STAGES = TableKind(
    "Latency by stage: p50, p95, ms",
    ("latency",),
    _stages_entries,
    (_NAME, *((stage, _of(stage, to=_stage)) for stage in _STAGES)),
    lambda _: ["Infer is the network alone; the others are the host's work and the copies, which total has too."],
)


# How good something is, with what it costs beside it


def _drift(key: str, form: str) -> Callable[[Entry], str]:
    return lambda entry: (
        NOTHING if entry["drift"] is None or entry["drift"][key] is None else f"{entry['drift'][key]:{form}}"
    )


def _accuracy_notes(record: Record) -> list[str]:
    drifts = [entry["drift"] for entry in record.details["engines"] if entry["drift"] is not None]
    references = dict.fromkeys(drift["reference"] for drift in drifts)
    notes = [f"On {record.details['data']}; areas in %, at the pictures' own resolution."]
    return notes + ([f"Drift is against {', '.join(references)}."] if references else [])


ACCURACY = TableKind(
    "Accuracy of engines",
    ("accuracy",),
    lambda record: record.details["engines"],
    (
        ("engine", _NAME[1]),
        ("by", _by),
        _INPUT,
        *_all(percent, **AREAS, image_ap="image AP"),
        *((f"map, {name}", _drift(f"map_{name}", ".2g")) for name in ("max", "p99")),
        ("score, max", _drift("score_max", ".2g")),
        ("rank", _drift("rank", ".4f")),
    ),
    _accuracy_notes,
)
SIZES = TableKind(
    "Which size and precision to take",
    ("sizes",),
    lambda record: record.details["points"],
    (
        *_all(str, name="setting", precision="precision"),
        *_all(size, input_size="input", trained_at="trained at"),
        *_TIMES,
        *_AREA_COLUMNS,
        ("gate", lambda entry: {True: "passed", False: "REFUSED", None: "not asked"}[entry["verified"]]),
        ("on the frontier", lambda entry: "yes" if entry["on_frontier"] else "no"),
    ),
    lambda record: [f"On {record.details['data']}; areas in %.", *record.details["advice"]],
)


def is_peer(entry: Entry) -> bool:
    """Whether a method of a peers record is not ours."""
    return not str(entry["name"]).startswith("STLM")


def _backbone(entry: Entry) -> str:
    """With the weights that it began with; of an engine of ours those are not known."""
    if entry["backbone"] is None or (entry["pretrained"] is None and not is_peer(entry)):
        return _words(entry["backbone"])
    return f"{entry['backbone']}, {entry['pretrained'] or 'random weights'}"


def _remarks(methods: Iterable[Entry]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for entry in methods:
        if entry["note"]:
            notes.setdefault(entry["note"].rstrip("."), []).append(entry["name"])
    return [f"{', '.join(names)}: {note}." for note, names in notes.items()]


PEERS = TableKind(
    "Beside other methods",
    ("peers",),
    lambda record: record.details["methods"],
    (
        ("method", _NAME[1]),
        ("backbone", _backbone),
        _INPUT,
        ("million parameters", _of("parameters", to=lambda n: NOTHING if n is None else f"{n / 1e6:.1f}")),
        ("trained, min", _of("train_minutes")),
        *_AREA_COLUMNS,
        *_TIMES,
        *_all(running_mb="memory, MB", model_mb="model, MB"),
    ),
    lambda record: [
        f"On {record.details['data']}; areas in %, at the pictures' own resolution.",
        *_remarks(record.details["methods"]),
    ],
)


def _interval_entries(record: Record) -> Iterator[Entry]:
    if record.benchmark == "gabor_knn":
        names = {"model": "STLM (PyTorch)", "bar": "Gabor filters", "gain": "STLM (PyTorch), gain over the bar"}
        found = [(names[row["method"]], row["kind"], row["estimates"]) for row in record.details["rows"]]
    else:
        found = [
            (method["name"] + words, kind, estimates)
            for method in record.details["methods"]
            for key, words in (("kinds", ""), ("gain", ", gain over the bar"))
            for kind, estimates in method.get(key, {}).items()
        ]
    for name, kind, estimates in found:
        sign = "+" * name.endswith("gain over the bar")
        yield (name, kind, *(_interval(estimates[metric], sign=sign) for metric in AREAS))


def _interval(estimate: dict[str, float | None], *, sign: str) -> str:
    if estimate["value"] is None:
        return NOTHING
    bounds = (estimate["low"], estimate["high"])
    low, high = (NOTHING if bound is None else rounded(100 * bound, digits=0, sign=sign) for bound in bounds)
    return f"{rounded(100 * estimate['value'], digits=1, sign=sign)} [{low}, {high}]"


INTERVALS = TableKind(
    "Beside other methods, by kind of defect: %, with 95 % intervals over parts",
    ("peers", "gabor_knn"),
    _interval_entries,
    _cells("method", "defect", *AREAS.values()),
)


def _demo_entries(record: Record) -> list[Entry]:
    evaluation = record.details["evaluation"]
    kinds = {**evaluation["kinds"], "all": evaluation["overall"]}
    return [{"name": kind, **scores} for kind, scores in kinds.items()]


def _demo_notes(record: Record) -> list[str]:
    inspection = record.details["inspection"]
    truth, times = inspection["truth"], inspection["latency"]["infer"]
    alarms, found = truth["false_alarms"], truth["defects_found"]
    return [
        f"In %. Of {inspection['frames']} frames that it then inspects, {found + truth['defects_missed']} with a "
        f"defect, it finds {found} and raises {alarms} false alarm{'s' * (alarms != 1)}; the network takes "
        f"{figure(times['p50_ms'])} ms (p50) and {figure(times['p95_ms'])} ms (p95) a frame."
    ]


DEMO = TableKind("The demo", ("demo",), _demo_entries, (("defect", _NAME[1]), *_AREA_COLUMNS), _demo_notes)


# What goes round: the camera line's loop, a training's steps, its loader


def _loop_entries(record: Record) -> list[Entry]:
    details = record.details
    memory, entry = details["memory"], size(details["input_size"])
    way = f"{size(details['frame_size'])} to {entry}"
    rows = [
        (f"frames a second with a network that takes no time, {entry}", *_turns(details["loop"]["frames_per_s"])),
        (f"everything but the network, {way}, p50, ms", *_turns(details["host"]["p50_ms"])),
        (f"everything but the network, {way}, p95, ms", *_turns(details["host"]["p95_ms"])),
    ]
    growth = f"growth over {memory['frames']} frames, MB of {figure(memory['resident_mb'][0])}"
    rows.append((growth, f"{memory['growth_mb']:.2f}", NOTHING))
    if "engine" in details:
        engine, start = details["engine"], details["start"]
        rows += [
            (f"frames a second, {engine['backend']} alone", *_turns(engine["backend_frames_per_s"])),
            ("frames a second, the loop around it", *_turns(engine["loop_frames_per_s"])),
            ("ratio of the two", *_turns(engine["ratio"])),
            ("resident besides the engine, MB", figure(details["engine_memory"]["besides_engine_mb"]), NOTHING),
            ("start to first verdict, s", *_turns(start["verdict_s"])),
            ("start besides opening the engine, s", *_turns(start["besides_s"])),
        ]
    return rows


def _turns(found: dict[str, Any]) -> tuple[str, str]:
    return figure(found["median"]), f"{figure(min(found['turns']))} – {figure(max(found['turns']))}"


def _training_entries(record: Record) -> list[Entry]:
    details, settings = record.details, record.details["settings"]
    names = ("straightforward", "stlm-edge")
    if not any(f"{name} step" in record.measures for name in names):  # the loader alone
        return []
    theirs, ours = (details["ways"][name] for name in names)
    what = (
        f"{settings['architecture']} at {size(settings['image_size'])}, batch {settings['batch_size']}, teacher "
        f"{settings['teacher']} ({settings['teacher_weights']})"
    )
    return [
        (
            what,
            *(figure(record.measures[f"{name} step"].median) for name in names),
            spread(details["ratio"], min(details["ratios"]), max(details["ratios"])),
            f"{figure(theirs['phases_s']['teacher'])}, {figure(ours['phases_s']['teacher'])}",
            f"{100 * ours['anomalous_share']:.0f} %",
            f"{figure(theirs['memory_gb'])}, {figure(ours['memory_gb'])}",
        )
    ]


_TRAINING_HEADS = ("training", "authors' way, s a step", "here", "ratio", "of that the teacher, there and here")


def _loader_entries(record: Record) -> list[Entry]:
    rates = {name: measure.median for name, measure in record.measures.items() if measure.unit == "pictures/s"}
    first = next(iter(rates.values()), 1)
    return [(name.removeprefix("loader, "), figure(rate), figure(rate / first)) for name, rate in rates.items()]


def _loader_notes(record: Record) -> list[str]:
    details = record.details
    settings = details.get("settings") or details | {
        "image_size": [details["size"]] * 2
    }  # older ones: the loader alone
    count = f"{details['pictures']} pictures" if "pictures" in details else "pictures"
    return [
        f"Pseudo anomalies ({settings['pseudo_anomalies']}) into {count} at {size(settings['image_size'])}, batches of "
        f"{settings['batch_size']}."
    ]


LOOP = TableKind("The camera line's loop", ("loop",), _loop_entries, _cells("", "median", "turns"))
TRAINING = TableKind(
    "A training step",
    ("training",),
    _training_entries,
    _cells(*_TRAINING_HEADS, "pictures with a pseudo anomaly", "GB, there and here"),
)
LOADER = TableKind(
    "The loader",
    ("loader", "training"),
    _loader_entries,
    _cells("loader", "pictures/s", "ratio"),
    _loader_notes,
)


def _gpu_entries(record: Record) -> Iterator[Entry]:
    for part in record.details["parts"]:
        for subject in part.get("subjects", []):
            times = (figure(subject["infer_ms"]), figure(subject["p50_ms"]))
            yield (part["name"], subject["name"], *times, _speed_up(subject["speed_up"]))
        if not part.get("subjects"):
            yield (part["name"], part["status"], NOTHING, NOTHING, NOTHING)


GPU_PARTS = TableKind(
    "All in one call on a GPU",
    ("gpu",),
    _gpu_entries,
    _cells("part", "", "infer p50, ms", "total p50, ms", "speed-up"),
    lambda record: [
        f"{part['name']} {part['status']}: {part['reason'].rstrip('.')}."
        for part in record.details["parts"]
        if part["reason"]
    ],
)


# Of any benchmark, and of several together


def _measures_entries(record: Record) -> list[Entry]:
    return [
        (
            name,
            figure(measure.median),
            f"{figure(min(measure.values))} – {figure(max(measure.values))}" if len(measure.values) > 1 else NOTHING,
            _words(measure.unit),
            f"{measure.better}{', exact' * measure.is_exact}",
        )
        for name, measure in record.measures.items()
    ]


MEASURES = TableKind("Measures", (), _measures_entries, _cells("measure", "median", "turns", "unit", "better"))


def _summed_methods(record: Record) -> list[Entry]:
    """Of peers our fastest engine, and those that find most parts and most of their defects' areas."""
    ours, peers = ([e for e in record.details["methods"] if is_peer(e) is peer] for peer in (False, True))
    shown = [min(ours, key=lambda entry: float(entry["p50_ms"]))] if ours else []
    for metric in ("image_auroc", "aupro") if peers else ():
        best = max(peers, key=lambda entry: float(entry[metric] or 0))
        shown += [best] if best not in shown else []
    return shown


def _summary_entries(record: Record) -> list[Entry]:
    """A few rows: of a demo all kinds together, of sizes the frontier, of latency, which does not say how good anything
    is, the first and the fastest."""
    details, benchmark = record.details, record.benchmark
    data = re.split("[:,]", str(details.get("data")))[0]  # of "magnetic_tile: 200 good pictures to train, …"
    if benchmark == "demo":
        times = details["inspection"]["latency"]["infer"]
        rows = [("stlm-tiny, `make demo`, network alone", "drawn part", details["evaluation"]["overall"], times)]
    elif benchmark == "sizes":
        rows = [(entry["name"], data, entry, entry) for entry in details["points"] if entry["on_frontier"]]
    elif benchmark == "peers":
        rows = [(f"{e['name']}, {_backbone(e)}", data, e, e) for e in _summed_methods(record)]
    else:
        subjects = details["subjects"]
        fastest = min(subjects, key=lambda subject: float(subject["stages"]["total"]["p50_ms"]))
        rows = [
            (f"{s['name']}, {s['architecture']} at {size(s['input_size'])}", NOTHING, {}, s["stages"]["total"])
            for s in (subjects[0], fastest)
        ]
    return [
        (name, on, *(percent(areas.get(m)) for m in _SUMMED), *(f(times) for _, f in _TIMES), str(record.device))
        for name, on, areas, times in rows
    ]


def _summary_notes(record: Record) -> list[str]:
    notes = [
        "Areas in %. The first row is the paper's own, taught by SAM, on other pictures and another device; nothing of "
        "it was measured here. Only rows of one record were timed in turns."
    ]
    return notes + (_remarks(_summed_methods(record)) if record.benchmark == "peers" else [])


def _printed(areas: Accuracy, metrics: Iterable[str]) -> Iterator[str]:
    """The paper's figures as it has them."""
    for metric in metrics:
        area = getattr(areas, metric)
        yield NOTHING if area is None else f"{area:.2f}"


_SUMMED = ("image_auroc", "pixel_auroc", "aupro")
_STLM = next(method for method in METHODS if method.name == "STLM")
_PRINTED = (*_printed(_STLM.mvtec, _SUMMED), f"{_STLM.inference_ms:.0f}", NOTHING, f"{GPU}, PyTorch")
SUMMARY = TableKind(
    "What it reaches",
    ("demo", "sizes", "peers", "latency"),
    _summary_entries,
    _cells("", "on", *(AREAS[metric] for metric in _SUMMED), "p50, ms", "p95, ms", "measured on"),
    _summary_notes,
    above=(("STLM, as the paper reports it", "MVTec AD", *_PRINTED),),
    names_device=False,
)


def _paper_entries() -> Iterator[Entry]:
    """The paper's methods on each of its data sets, most accurate pixels first."""
    for data, key in (("MVTec AD", "mvtec"), ("VisA", "visa"), ("DAGM", "dagm")):
        found = [(getattr(method, key), method) for method in METHODS if getattr(method, key) is not None]
        for areas, method in sorted(found, key=lambda entry: -(entry[0].pixel_auroc or 0)):
            time = NOTHING if method.inference_ms is None or key != "mvtec" else f"{method.inference_ms:.0f}"
            yield (method.name, data, *_printed(areas, AREAS), time, f"{method.parameters_m:.2f}")


PAPER = TableKind(
    f"The paper's tables 1 to 3: averages in %, on an {GPU} ({SOURCE})",
    (),
    lambda _: (),
    _cells("method", "data", "image AUROC", "pixel AUROC", "PRO", "AP", "ms", "million parameters"),
    above=tuple(_paper_entries()),
)

KINDS: dict[str, TableKind] = {
    "latency": LATENCY,
    "latency-stages": LATENCY_STAGES,
    "accuracy": ACCURACY,
    "sizes": SIZES,
    "peers": PEERS,
    "intervals": INTERVALS,
    "loop": LOOP,
    "training": TRAINING,
    "loader": LOADER,
    "gpu": GPU_PARTS,
    "demo": DEMO,
    "measures": MEASURES,
    "summary": SUMMARY,
}
"""By the names that markers in documents give, in the report's order; `measures` takes the records of any benchmark."""
