"""Charts as SVG, by matplotlib: text stays text, and colours follow the page that they stand in.

Every colour here is a name of `COLOURS`; in the SVG it becomes a CSS variable of the page with a
fallback, so that one picture serves a light and a dark page, and a file of its own. The palette is
Okabe and Ito's, which colour-blind people can tell apart; lines differ in dashes besides.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.lazily import lazily

with lazily():
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

WIDTH: Final = 4.3
"""Inches; little more than a phone's width in CSS pixels, so that text stays above 11 of them."""
LONGEST_NAME: Final = 24
"""Characters of a class name beside a chart."""
LONGEST_PAIR: Final = 30
# sentinel colours in matplotlib's output and what the page makes of them
COLOURS: Final = {
    "#010203": "currentColor",
    "#020304": "var(--faint, #8a8f98)",
    "#030405": "var(--series-0, #767b84)",
    "#040506": "var(--series-1, #d55e00)",
    "#050607": "var(--series-2, #0072b2)",
    "#060708": "var(--series-3, #009e73)",
    "#070809": "var(--series-4, #cc79a7)",
}
TEXT, FAINT, *SERIES = COLOURS
DASHES: Final = ((0, (1, 1)), (0, (4, 1.5)), (0, ()), (0, (6, 1, 1, 1)), (0, (2, 2)))
MARKERS: Final = ("o", "s", "^", "D")
STYLE: Final = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": TEXT,
    "axes.titlecolor": TEXT,
    "axes.axisbelow": True,
    "text.color": TEXT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
Numbers = npt.NDArray[np.number[Any]]


def ap_by_class(
    names: Sequence[str], baseline: Sequence[float], ours: Sequence[float], legend: tuple[str, str]
) -> str:
    """AP of each class by two methods, best of ours first; a line joins the two."""
    order = np.argsort(-np.asarray(ours), kind="stable")
    before, after = np.asarray(baseline)[order], np.asarray(ours)[order]
    with _picture("ap", (WIDTH, 0.9 + 0.23 * len(names))) as (figure, svg):
        first, second = (before, legend[0], SERIES[0]), (after, legend[1], SERIES[2])
        _pairs(figure, [names[i] for i in order], first, second, "AP, percent")
    return svg[0]


def precision_recall(curves: Mapping[str, Numbers], places: Mapping[str, int]) -> str:
    """Precision over recall by method, each [L] at evenly spaced recalls 0 to 1.

    `places` says which colour and dashes a method has, so that it looks the same everywhere.
    """
    with _picture("precision-recall", (WIDTH, 3.6)) as (figure, svg):
        axes = figure.subplots()
        for name, precision in curves.items():
            _line(axes, np.linspace(0, 100, len(precision)), 100 * precision, name, places[name])
        axes.set(
            xlim=(0, 100), ylim=(0, 102), xlabel="recall, percent", ylabel="precision, percent"
        )
        axes.grid()
        axes.legend()
    return svg[0]


def training(
    histories: Mapping[str, Sequence[Mapping[str, float]]], places: Mapping[str, int]
) -> str:
    """Loss and learning rate by epoch, one line per method; see `precision_recall` on `places`."""
    with _picture("training", (WIDTH, 3.8)) as (figure, svg):
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for name, history in histories.items():
            epochs = np.arange(1, len(history) + 1)
            _line(above, epochs, np.array([e["loss/train"] for e in history]), name, places[name])
            _line(
                below, epochs, np.array([e["learning_rate"] for e in history]), name, places[name]
            )
        above.set_ylabel("loss")
        below.set_ylabel("learning rate")
        below.set_xlabel("epoch")
        below.xaxis.get_major_locator().set_params(integer=True)
        for axes in (above, below):
            axes.grid()
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter("{x:g}")
        if len(histories) > 1:
            above.legend()
    return svg[0]


def study(names: Sequence[str], values: Mapping[str, Sequence[Sequence[float]]], axis: str) -> str:
    """MAP of each variant, one dot per seed and a line through the means.

    Args:
        names: the variants; where all are numbers, they stand on a logarithmic axis.
        values: by image set, a list per variant with a value per seed.
        axis: what the variants are variants of.

    """
    is_number = all(name.isdecimal() for name in names)
    places = np.log2([int(name) for name in names]) if is_number else np.arange(len(names))
    with _picture("study", (WIDTH, 3.2)) as (figure, svg):
        axes = figure.subplots()
        for number, (label, of_set) in enumerate(values.items()):
            colour, dashes = SERIES[2 - number % 2], DASHES[2 - number % 2]
            means = [float(np.mean(seeds)) for seeds in of_set]
            style = dashes if is_number else "none"
            axes.plot(places, means, color=colour, linestyle=style, marker="_", markersize=18)
            for place, seeds in zip(places, of_set, strict=True):
                axes.scatter([place] * len(seeds), seeds, s=22, color=colour, zorder=3)
            axes.plot([], [], color=colour, marker="o", linestyle="none", label=label)
        axes.set_xticks(places, [_short(name) for name in names])
        axes.margins(x=0.15)
        axes.set(xlabel=axis, ylabel="mAP, percent")
        axes.grid(axis="y")
        if len(values) > 1:
            figure.legend(loc="outside upper left", ncols=len(values))
    return svg[0]


def curves(
    picture: str,
    names: Sequence[str],
    values: Mapping[str, Sequence[tuple[float, float]]],
    axis: str,
) -> str:
    """MAP of each method by variant, with the standard deviation over seeds as a band.

    Args:
        picture: name of the picture, for its ids.
        names: the variants; where all are numbers, they stand where those are.
        values: by method, (mean, standard deviation) of each variant.
        axis: what the variants are variants of.

    """
    is_number = all(name.isdecimal() for name in names)
    numbers = [float(name) for name in names] if is_number else list(range(len(names)))
    # shots double from one to the next, shares of labels do not
    is_doubling = is_number and max(numbers) > 4 * max(min(numbers), 1) and min(numbers) < 10
    places = np.log2(numbers) if is_doubling else np.array(numbers)
    with _picture(re.sub(r"\W", "-", picture), (WIDTH, 3.2 + 0.2 * (len(values) // 2))) as (
        figure,
        svg,
    ):
        axes = figure.subplots()
        for number, (method, of_method) in enumerate(values.items()):
            means, spreads = (np.array(part) for part in zip(*of_method, strict=True))
            colour, dashes = SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]
            marker = MARKERS[number // len(SERIES) % len(MARKERS)]
            axes.plot(places, means, color=colour, linestyle=dashes, marker=marker, label=method)
            axes.fill_between(
                places, means - spreads, means + spreads, color=colour, alpha=0.15, linewidth=0
            )
        axes.set_xticks(places, [_short(name) for name in names])
        axes.set(xlabel=axis, ylabel="mAP, percent")
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=2)
    return svg[0]


def precision_and_recall(names: Sequence[str], counts: Sequence[tuple[int, int, int]]) -> str:
    """Both shares of each class, in the order given, and the counts (right, named, shown) of them.

    A class that is never named has no precision, one that is never shown no recall.
    """
    right, named, shown = np.asarray(counts, float).reshape(-1, 3).T
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = 100 * right / named, 100 * right / shown
    with _picture("quality", (WIDTH, 1.2 + 0.23 * len(names))) as (figure, svg):
        first, second = (recall, "recall", SERIES[1]), (precision, "precision", SERIES[2])
        axes = _pairs(figure, names, first, second, "percent")
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(
            range(len(names)), [" / ".join(f"{n:,}" for n in each) for each in counts]
        )
        beside.tick_params(axis="y", length=0)
        beside.spines["right"].set_visible(False)
        axes.set_title("right / named / shown", loc="right", fontsize=11)
    return svg[0]


def counts_by_class(names: Sequence[str], counts: Sequence[int]) -> str:
    """A bar per class, in the order given, on a logarithmic scale."""
    with _picture("counts", (WIDTH, 0.7 + 0.23 * len(names))) as (figure, svg):
        axes = figure.subplots()
        # a bar on a logarithmic scale begins somewhere: at half of one caption
        lengths = np.asarray(counts) - 0.5
        axes.barh(np.arange(len(names)), lengths, left=0.5, color=SERIES[2], height=0.7)
        axes.set_yticks(np.arange(len(names)), [_short(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.set_xlim(left=0.5)
        # with a formatter of its own matplotlib would write mathematics, which is off
        is_wide = max(counts) >= 30
        steps = (1.0,) if is_wide else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=9))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("captions")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    return svg[0]


def pairs_by_count(pairs: Sequence[str], counts: Sequence[int]) -> str:
    """A bar per pair of classes, in the order given."""
    with _picture("pairs", (WIDTH, 0.8 + 0.23 * len(pairs))) as (figure, svg):
        axes = figure.subplots()
        axes.barh(np.arange(len(pairs)), counts, color=SERIES[2], height=0.7)
        axes.set_yticks(np.arange(len(pairs)), [_short(pair, LONGEST_PAIR) for pair in pairs])
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("captions")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    return svg[0]


def histogram(name: str, places: Sequence[int], counts: Sequence[int], label: str) -> str:
    """A bar per whole number."""
    with _picture(name, (WIDTH, 2.6)) as (figure, svg):
        axes = figure.subplots()
        axes.bar(places, counts, color=SERIES[2], width=0.8)
        axes.set_xlabel(label)
        axes.set_ylabel("captions")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y")
    return svg[0]


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _pairs(
    figure: Figure,
    names: Sequence[str],
    first: tuple[Numbers, str, str],
    second: tuple[Numbers, str, str],
    axis: str,
) -> Axes:
    """Two percentages of each class, joined by a line, from (values, label, colour) of both."""
    axes = figure.subplots()
    rows = np.arange(len(names))
    axes.hlines(rows, first[0], second[0], color=FAINT, linewidth=2, alpha=0.5)
    for (values, label, colour), marker, size, order in ((first, "D", 26, 2), (second, "o", 34, 3)):
        axes.scatter(values, rows, s=size, color=colour, marker=marker, label=label, zorder=order)
    axes.set_yticks(rows, [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(-2, 102)
    axes.set_xlabel(axis)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    figure.legend(loc="outside upper left", ncols=2)
    return axes


def _line(axes: Axes, x: Numbers, y: Numbers, label: str, place: int) -> None:
    marker = "o" if len(x) == 1 else None
    # where colours begin anew, they have other dashes
    turn = place // len(SERIES)
    colour, dashes = SERIES[place % len(SERIES)], DASHES[(place + turn) % len(DASHES)]
    axes.plot(x, y, color=colour, linestyle=dashes, linewidth=2, marker=marker, label=label)


@contextmanager
def _picture(name: str, size: tuple[float, float]) -> Iterator[tuple[Figure, list[str]]]:
    """A figure to draw on, and a list that holds its SVG afterwards."""
    svg: list[str] = []
    # Any: matplotlib types the names of all its settings
    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": name}
    # ids are salted by name: the same picture has the same bytes
    with mpl.rc_context(style), warnings.catch_warnings():
        # a browser has glyphs that matplotlib's own font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure(figsize=size)
        yield figure, svg
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        svg.append(_fitted(file.getvalue(), name))


def _fitted(svg: str, name: str) -> str:
    """The file as an element of a page: its own ids, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    for sentinel, colour in COLOURS.items():
        svg = svg.replace(sentinel, colour)
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
