"""HTML pages from the templates beside: self-contained, escaped, without scripts."""

from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER: Final = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> str:
    """A page; every value is escaped but the pictures that `picture` has vouched for."""
    return _environment().get_template(template).render(**context)


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
