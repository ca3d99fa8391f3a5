"""JSON read so that nothing is lost: numbers beyond 64 bits, NaN, texts that are no UTF-8."""

import json
import math
from decimal import Decimal
from typing import Any, Final

MOST_DIGITS: Final = 1000


def whole_number(digits: str) -> int | float:
    """An integer as written; beyond MOST_DIGITS, infinity."""
    return int(digits) if len(digits) <= MOST_DIGITS else math.copysign(math.inf, -(digits < "0"))


def number(text: str) -> int | float:
    """A number with a point or an exponent: an integer if it is whole, as ids may be written so."""
    value = Decimal(text)
    if value.adjusted() <= MOST_DIGITS and value == value.to_integral_value():
        return int(value)
    return float(text)


DECODER: Final = json.JSONDecoder(parse_int=whole_number, parse_float=number)
LENIENT: Final = json.JSONDecoder(parse_int=whole_number, parse_float=number, strict=False)


def loads(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none.

    """
    try:
        return DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
