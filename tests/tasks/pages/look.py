"""What a browser measures of a page's look: widths, letters, contrasts, words for pictures."""

from pathlib import Path
from typing import Any

from tests.browser import Page

WIDTHS = (390, 820, 1440)
SHEET = (718, 1046)
"""A4 without margins of a centimetre, in CSS pixels."""
TALL = """
[...document.querySelectorAll(".tile, .card, .chart")]
  .map(each => [each.getBoundingClientRect().height, each.textContent.trim().slice(0, 40)])
  .filter(([height]) => height > %d).map(([height, name]) => `tall ${height}: ${name}`)
"""
MEASURE = """
(() => {
  document.querySelectorAll("details").forEach(each => each.open = true);
  const bad = [], width = document.documentElement.clientWidth;
  const rgba = text => {
    const numbers = text.match(/-?[\\d.]+(e-?\\d+)?/g).map(Number);
    const scale = text.startsWith("color(") ? 255 : 1;
    return [...numbers.slice(0, 3).map(one => one * scale), numbers.length > 3 ? numbers[3] : 1];
  };
  const over = (one, other) => one.slice(0, 3).map((c, i) => c * one[3] + other[i] * (1 - one[3]));
  const light = colour => {
    const [r, g, b] = colour.map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = element => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      layers.push(rgba(getComputedStyle(each).backgroundColor));
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect(), style = getComputedStyle(element);
    if (!box.width || !box.height || style.visibility === "hidden") continue;
    // what only a reader of screens is told
    const head = element.closest("thead");
    if (head && getComputedStyle(head).position === "absolute") continue;
    const name = `${element.tagName} ${element.className.baseVal ?? element.className} ` +
      element.textContent.trim().slice(0, 40);
    if (box.right > width + 1 || box.left < -1) bad.push(`wide ${box.left}-${box.right}: ${name}`);
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || ["STYLE", "TITLE", "SCRIPT"].includes(element.tagName)) continue;
    const drawn = element instanceof SVGElement;
    const turned = drawn ? element.getScreenCTM() : {a: 1, b: 0};
    const size = parseFloat(style.fontSize) * Math.hypot(turned.a, turned.b);
    if (size < 11) bad.push(`small ${size.toFixed(1)}: ${name}`);
    const back = paper(element), front = over(rgba(drawn ? style.fill : style.color), back);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) bad.push(`contrast ${contrast.toFixed(2)}: ${name}`);
  }
  for (const chart of document.querySelectorAll("svg")) {
    if (!(chart.getAttribute("aria-label") || "").trim()) bad.push("a chart without words");
  }
  for (const image of document.images) if (!image.alt) bad.push("an image without words");
  return [...new Set(bad)].slice(0, 20);
})()
"""


def faults_of(page: Page, path: Path) -> list[Any]:
    """What is wrong with a page's look at any width, light or dark; and that it is too large."""
    faults: list[Any] = []
    if path.stat().st_size > 5_000_000:
        faults.append(f"{path.stat().st_size:,} bytes")
    for width in WIDTHS:
        for dark in (False, True):
            page.complaints.clear()
            page.open(path, width=width, dark=dark)
            found = [*page.complaints, *page.ask(MEASURE)]
            faults += [f"{width}{' dark' * dark}: {fault}" for fault in found]
    page.open(path, width=SHEET[0], media="print")
    faults += [f"print: {fault}" for fault in page.ask(TALL % SHEET[1])]
    return faults
