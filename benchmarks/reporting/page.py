"""The report: one HTML page that asks nothing of anybody, and the same tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from benchmarks.reporting import figure_1
from benchmarks.reporting.figures import FIGURES, Figure
from benchmarks.reporting.names import BESIDE, KINDS
from benchmarks.reporting.quality import PAPER_HEADS, paper_rows
from benchmarks.reporting.sources import INCOMPLETE, Source, identifier, made_of
from benchmarks.reporting.style import STYLE
from benchmarks.reporting.tables import NOTHING, Kind, Row, Table, make_table, to_markdown
from stlm_edge.errors import DataError
from train.paper.figures import GPU, SOURCE

_TITLE = "stlm-edge: figures and where they are from"
_WORDS = (
    "Each table and figure is of one or more runs of a benchmark; below it stand the command, the device, the day and "
    "the commit. Milliseconds of different devices are not comparable, and those of different runs hardly: read the "
    "ratios within one run first."
)


@dataclass
class _Section:
    """What stands below one heading, of some records."""

    title: str
    sources: list[Source]
    tables: list[Table] = field(default_factory=list)
    figures: list[tuple[Figure, list[Source]]] = field(default_factory=list)


def to_html(sources: Sequence[Source]) -> str:
    """The page. Raises `DataError` if a complete record lacks what is to be shown."""
    sections = _sections(sources)
    links = "".join(
        f'<li><a href="#{identifier(section.title)}">{escape(section.title)}</a></li>' for section in sections
    )
    body = "\n".join(_section_html(section) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(_TITLE)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(_TITLE)}</h1>\n<p>{escape(_WORDS)}</p>\n<nav><ul>{links}</ul></nav>\n{body}\n</body>\n</html>\n"
    )


def to_document(sources: Sequence[Source]) -> str:
    """The tables as Markdown. Raises `DataError` as `to_html` does."""
    parts = [f"# {_TITLE}", _WORDS]
    for section in _sections(sources):
        parts.append(f"## {section.title}")
        for table in section.tables:
            if not section.title.startswith(table.title):
                parts.append(f"### {table.title}")
            parts.append(to_markdown(table, section.sources).rstrip("\n"))
    return "\n\n".join(parts) + "\n"


def _sections(sources: Sequence[Source]) -> list[_Section]:
    """Figure 1, then the kinds of benchmark in the order of `KINDS`, then those without a table of their own."""
    paper = Table(
        "The paper's tables 1 to 3", PAPER_HEADS, tuple(paper_rows()), (f"Averages in %, on an {GPU}: {SOURCE}.",)
    )
    sections = [_Section("Accuracy against time", [], [paper], figure_1.panels(sources))]
    shown: set[int] = set()
    for name, kind in KINDS.items():
        of_kind = [source for source in sources if source.record.benchmark in kind.benchmarks]
        if not of_kind or any(name in beside for beside in BESIDE.values()):
            continue
        shown |= {id(source) for source in of_kind}
        if name in _TOGETHER:
            sections.append(_Section(kind.title, of_kind, [_table(kind, of_kind)]))
        else:  # a table for each run: times of different runs are not comparable
            sections += [_one(name, source, of_kind) for source in of_kind]
    rest = [source for source in sources if id(source) not in shown]
    return sections + [
        _Section(f"{s.record.benchmark} ({s.path.name})", [s], [_table(KINDS["measures"], [s])]) for s in rest
    ]


_TOGETHER = ("training", "loader")
"""Benchmarks whose rows are ratios within a run, so that rows of several runs make one table."""


def _one(name: str, source: Source, of_kind: Sequence[Source]) -> _Section:
    kind = KINDS[name]
    title = kind.title if len(of_kind) == 1 else f"{kind.title} ({source.path.name})"
    section = _Section(title, [source], [_table(kind, [source])])
    section.tables += [
        _table(KINDS[other], [source])
        for other in BESIDE.get(name, ())
        if source.record.benchmark in KINDS[other].benchmarks
    ]
    if name in FIGURES:
        drawn = made_of(source, FIGURES[name])
        section.figures = [(figure, [source]) for figure in drawn]
    return section


def _table(kind: Kind, sources: Sequence[Source]) -> Table:
    """Of an incomplete record that has not all the table shows, what it has measured instead."""
    try:
        return make_table(kind, sources)
    except DataError:
        if all(source.record.is_complete for source in sources):
            raise
        return make_table(KINDS["measures"], sources)


def _section_html(section: _Section) -> str:
    parts = [f'<section id="{identifier(section.title)}">\n<h2>{escape(section.title)}</h2>']
    parts += [
        f'<p class="loud">{escape(s.path.name)}: {INCOMPLETE}.</p>' for s in section.sources if not s.record.is_complete
    ]
    if section.figures:
        drawn = "\n".join(_figure_html(figure, sources) for figure, sources in section.figures)
        parts.append(f'<div class="figures">\n{drawn}\n</div>')
    for table in section.tables:
        if not section.sources:  # figures of others, to look up
            title = escape(table.title)
            parts.append(f"<details><summary>{title}</summary>{_table_html(table, heading=False)}</details>")
            continue
        parts += [_table_html(table, heading=not section.title.startswith(table.title)), _origins(section.sources)]
    return "\n".join([*parts, "</section>"])


def _figure_html(figure: Figure, sources: Sequence[Source]) -> str:
    keys = "".join(f'<span class="key {css}"></span>{escape(words)}' for css, words in figure.keys)
    marks = "".join(f'<p class="loud">{INCOMPLETE}.</p>' for source in sources if not source.record.is_complete)
    return (
        f"<figure>\n<h3>{escape(figure.title)}</h3>{marks}\n{figure.svg}\n"
        f"<figcaption>{keys}{'<br>' if keys else ''}{escape(figure.caption)}{_origins(sources)}</figcaption>\n</figure>"
    )


def _origins(sources: Iterable[Source]) -> str:
    return "".join(
        f'<p class="from"><code>{escape(s.record.command)}</code><br>{escape(s.place)} ({escape(s.path.name)})</p>'
        for s in sources
    )


def _table_html(table: Table, *, heading: bool) -> str:
    columns = range(1, len(table.heads))  # the first one has names
    numeric = [False, *(_is_numeric([row[column] for row in table.rows]) for column in columns)]
    parts = [f"<h3>{escape(table.title)}</h3>"] if heading else []
    parts += [f'<div class="scroll" tabindex="0"><table aria-label="{escape(table.title)}"><thead>']
    parts += [_row_html(table.heads, numeric, tag="th"), "</thead><tbody>"]
    parts += [_row_html(row, numeric, tag="td") for row in table.rows]
    parts += ["</tbody></table></div>", *(f"<p>{escape(sentence)}</p>" for sentence in table.notes)]
    return "\n".join(parts)


def _row_html(cells: Row, numeric: Sequence[bool], *, tag: str) -> str:
    made = []
    for cell, is_number in zip(cells, numeric, strict=True):
        aligned = ' class="number"' if is_number else ""
        made.append(f"<{tag}{aligned}>{escape(cell)}</{tag}>")
    return f"<tr>{''.join(made)}</tr>"


def _is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column is one of figures, which stand to the right."""
    return all(cell == NOTHING or cell[:1].isdigit() or cell[:1] in "+-" for cell in cells)
