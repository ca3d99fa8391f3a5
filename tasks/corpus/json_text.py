"""A JSON document read piece by piece, so that memory does not grow with it."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import orjson

from tasks.errors import InputError

BLOCK: Final = 1 << 20
SMALLEST_PART: Final = 1 << 12
LONGEST_ITEM: Final = 8 << 20
LONGEST_NUMBER: Final = 20
WHITESPACE: Final = re.compile(r"[ \t\r\n]*")
NUMBER_CUT: Final = re.compile(r"\.|[eE][+-]?|")


class JsonText:
    """JSON text read piece by piece; knows how far it is, for messages."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        self._decode: Callable[..., str] = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._json = json.JSONDecoder(parse_int=_whole_number)
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
                value, end = self._json.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if self._room() and self._more():
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
                pass
        else:
            self.value()

    def blocks(self) -> Iterator[list[Any]]:
        """The items of the next value, a list, some at a time."""
        self.take("[", "a list")
        if self.peek() == "]":
            self.take("]", "]")
            return
        while True:
            yield self._some()
            if self.take(",]", "',' or ']' after an item") == "]":
                return

    def _some(self) -> list[Any]:
        """The next items up to a '}' at hand if that reads as a list, else the next one.

        JSON is read from left to right: what reads as a list of whole items from an item's start
        is that, even if the '}' stands in a text.
        """
        self.peek()
        if self.place < self._odd_until:
            return [self.value()]
        while len(self._text) - self._at < BLOCK and self._more():
            pass
        length = len(self._text) - self._at
        # the list may end, or hold something odd: look for it in ever smaller parts
        while length > SMALLEST_PART:
            end = self._text.rfind("}", self._at, self._at + length) + 1
            try:
                items: list[Any] = orjson.loads(f"[{self._text[self._at : end]}]")
            except orjson.JSONDecodeError:
                items = []
            if items:
                self._at = end
                return items
            length //= 4
        self._odd_until = self.place + length
        return [self.value()]

    def _room(self) -> bool:
        return len(self._text) - self._at <= LONGEST_ITEM

    def _more(self) -> bool:
        if self._ended:
            return False
        block = self._file.read(BLOCK)
        self._ended = not block
        try:
            text = self._decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: not UTF-8 ({error.reason}); expected JSON") from error
        self._dropped += self._at
        self._text, self._at = self._text[self._at :] + text, 0
        return not self._ended


def _whole_number(digits: str) -> int | float:
    """As orjson reads it: beyond 64 bits, a float."""
    if len(digits) <= LONGEST_NUMBER and -(2**63) <= (number := int(digits)) < 2**64:
        return number
    return float(digits)
