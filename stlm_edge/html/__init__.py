"""Reports for people: one HTML file with all it shows inside, which prints, and asks nobody for anything.

A report is a template of its own that extends `page.html` here; whatever a template is given is escaped. Charts are
matplotlib's, as SVG in the page, whose colours follow the reader's: light, dark, on paper.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from stlm_edge import __version__
from stlm_edge.files import write_text
from stlm_edge.imaging import Image, encode_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "add_legend", "chart", "data_uri", "new_figure", "write_page"]

COLOURS = {
    "ink": "#010203",
    "soft": "#010204",
    "line": "#010205",
    "accent": "#010206",
    "good": "#010207",
    "unclear": "#010208",
    "reject": "#010209",
    "missed": "#01020a",
    "fault": "#01020b",
}
"""To draw with: stand for the variables of `page.css` that are called so."""

_HERE = Path(__file__).parent
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stlm",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.axisbelow": True,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
    "text.color": COLOURS["ink"],
}


def new_figure(*, width: float = 8.0, height: float = 2.6) -> tuple[Figure, Axes]:
    """A figure of so many inches, which is shown as wide as there is room, and its axes, in the style of the page."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(axis="y", color=COLOURS["line"], linewidth=0.5)
        return figure, axes


def add_legend(axes: Axes) -> None:
    """Say above the axes what is drawn, in one line."""
    axes.legend(
        ncols=8, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, labelcolor=COLOURS["soft"], borderpad=0
    )


def chart(figure: Figure, *, name: str, text: str) -> Markup:
    """A figure as it stands in a page.

    Args:
        name: unlike that of the page's other charts.
        text: what it shows, for who does not see it.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    out = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)  # that of the page
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    # As wide as its place; its own size is that of the view box.
    head, _, rest = svg.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    label = escape(text)
    svg = f'{head} role="img" aria-label="{label}">{rest}'
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return Markup(svg)


def data_uri(image: Image, *, suffix: str = ".jpg") -> str:
    """A picture inside of the page, for `src`. Raises `ImageError`."""
    kind = "jpeg" if suffix == ".jpg" else suffix[1:]
    return f"data:image/{kind};base64,{base64.b64encode(encode_image(image, suffix=suffix)).decode()}"


def write_page(path: Path, template: Path, **values: Any) -> None:
    """Fill a template in and write it, atomically.

    Args:
        template: extends `page.html`, which has the blocks `head`, what stands below the title, and `body`, and wants a
            `title`.
        values: by the template's names.
    Raises:
        OutputError: if `path` cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))  # ours
    page = environment.get_template(template.name).render(values, style=style, version=__version__)
    write_text(path, page)
