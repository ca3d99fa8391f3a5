"""HTML pages from the templates beside: self-contained, escaped, without scripts."""

import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER: Final = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> str:
    """A page; every value is escaped but the pictures that `picture` has vouched for."""
    page = _environment().get_template(template).render(**context)
    return re.sub(r"<table>.*?</table>", _labelled, page, flags=re.DOTALL)


def _labelled(table: re.Match[str]) -> str:
    """The table with its columns' names in each cell: on a narrow page they stand in front."""
    names = [
        re.sub(r"<[^>]*>", "", head) for head in re.findall(r"<th\b[^>]*>(.*?)</th>", table[0])
    ]

    def row(found: re.Match[str]) -> str:
        left = iter(names)
        return re.sub(r"<td\b", lambda _: f'<td data-label="{next(left, "")}"', found[0])

    return re.sub(r"<tr>(?:(?!<th\b).)*?</tr>", row, table[0], flags=re.DOTALL)


def picture(svg: str, description: str) -> Markup:
    """A chart of `pictures` as an element that says what it shows to who cannot see it."""
    label = escape(description, quote=True)
    # S704: the chart's own texts were escaped by matplotlib, the description is here
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))  # noqa: S704


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    environment.filters["tenths"] = lambda number: f"{number:.1f}"
    environment.filters["signed"] = lambda number: f"{number:+.1f}"
    return environment
