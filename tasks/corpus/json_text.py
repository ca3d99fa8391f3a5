"""A JSON document read piece by piece, so that memory does not grow with it.

An item of a list that is broken (a raw line break in a text, a sign missing) costs itself alone:
reading goes on behind it. A byte that is no UTF-8 becomes a lone surrogate, which no text may have.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import orjson

from tasks.corpus import exact_json
from tasks.corpus.records import Broken
from tasks.corpus.text_files import Source
from tasks.errors import InputError

BLOCK: Final = 1 << 20
SMALLEST_PART: Final = 1 << 12
LONGEST_ITEM: Final = 8 << 20
WHITESPACE: Final = re.compile(r"[ \t\r\n]*")
NUMBER_CUT: Final = re.compile(r"\.|[eE][+-]?|")
# where an object ends and the next begins, or the list does
ITEM_ENDS: Final = re.compile(r"\}(?=\s*(?:,\s*\{|\]))")
# how near to the end of what was read an error may be for want of the rest
MARGIN: Final = 64


@dataclass(frozen=True)
class Piece:
    """Some items of a list."""

    items: list[Any]
    text: str | None
    """Their text where they were read fast, so that numbers beyond 64 bits have become floats."""

    @cached_property
    def exact(self) -> list[Any]:
        """The items, nothing lost."""
        return self.items if self.text is None else list(exact_json.loads(f"[{self.text}]"))


class JsonText:
    """JSON text read piece by piece; knows how far it is, for messages."""

    def __init__(self, path: Path, file: Source) -> None:
        self.path = path
        self._file = file
        self._decode: Callable[..., str] = codecs.getincrementaldecoder("utf-8")(
            "surrogateescape"
        ).decode
        self._text, self._at, self._dropped, self._ended = "", 0, 0, False
        self._odd_until = 0

    @property
    def place(self) -> int:
        """Characters behind."""
        return self._dropped + self._at

    def fail(self, expected: str) -> InputError:
        """The error for what stands at the present place."""
        where = f"character {self.place + 1}"
        state = "the file ends" if self._ended and self._at >= len(self._text) else "broken JSON"
        return InputError(
            f"{self.path}, {where}: {state}; expected {expected}; fetch the file again"
        )

    def peek(self) -> str:
        """The next sign that is no white space, '' at the end."""
        while True:
            match = WHITESPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, signs: str, expected: str) -> str:
        """The next sign, which must be one of `signs`."""
        sign = self.peek()
        if not sign or sign not in signs:
            raise self.fail(expected)
        self._at += 1
        return sign

    def value(self) -> Any:
        """The next whole value."""
        self.peek()
        while True:
            try:
                value, end = exact_json.DECODER.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if self._may_go_on(error) and self._room() and self._more():
                    continue
                raise self.fail("a whole JSON value") from error
            # a number may go on in the next block, be it after its point or in its exponent
            if NUMBER_CUT.fullmatch(self._text, end) and self._more():
                continue
            self._at = end
            return value

    def skip(self) -> None:
        """Step over the next value; a list is stepped over item by item."""
        if self.peek() == "[":
            for _ in self.blocks():
                continue
        else:
            self.value()

    def blocks(self) -> Iterator[Piece]:
        """The items of the next value, a list, some at a time; an object may be `Broken`."""
        self.take("[", "a list")
        if self.peek() == "]":
            self.take("]", "]")
            return
        while True:
            yield self._some()
            if self.take(",]", "',' or ']' after an item") == "]":
                return

    def _some(self) -> Piece:
        """The next items up to a '}' at hand if that reads as a list, else the next one.

        JSON is read from left to right: what reads as a list of whole items from an item's start
        is that, even if the '}' stands in a text.
        """
        self.peek()
        if self.place < self._odd_until:
            return Piece([self._item()], None)
        while len(self._text) - self._at < BLOCK and self._more():
            pass
        length = len(self._text) - self._at
        # the list may end, or hold something odd: look for it in ever smaller parts
        while length > SMALLEST_PART:
            end = self._text.rfind("}", self._at, self._at + length) + 1
            text = self._text[self._at : end]
            try:
                items: list[Any] = orjson.loads(f"[{text}]")
            except orjson.JSONDecodeError:
                items = []
            if items:
                self._at = end
                return Piece(items, text)
            length //= 4
        self._odd_until = self.place + length
        return Piece([self._item()], None)

    def _item(self) -> Any:
        """The next item of a list; an object that is broken is stepped over."""
        is_object = self.peek() == "{"
        try:
            return self.value()
        except InputError:
            end = self._end_of_broken() if is_object else None
            if end is None:
                raise
        broken = Broken(self._text[self._at : end])
        self._at = end
        return broken

    def _end_of_broken(self) -> int | None:
        """Where a broken object ends; None if that cannot be told."""
        try:
            # all that is wrong may be a raw line break in a text
            return exact_json.LENIENT.raw_decode(self._text, self._at)[1]
        except (json.JSONDecodeError, RecursionError):
            pass
        while True:
            found = ITEM_ENDS.search(self._text, self._at)
            if found:
                return found.end()
            if not (self._room() and self._more()):
                return None

    def _may_go_on(self, error: Exception) -> bool:
        """True if the rest of the file may mend what is wrong with what was read so far."""
        is_far = isinstance(error, json.JSONDecodeError) and error.pos < len(self._text) - MARGIN
        return not is_far or str(error).startswith("Unterminated")

    def _room(self) -> bool:
        return len(self._text) - self._at <= LONGEST_ITEM

    def _more(self) -> bool:
        if self._ended:
            return False
        block = self._file.read(BLOCK)
        self._ended = not block
        text = self._decode(block, final=self._ended)
        self._dropped += self._at
        self._text, self._at = self._text[self._at :] + text, 0
        return not self._ended
