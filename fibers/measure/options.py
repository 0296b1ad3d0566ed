"""Options of the commands that measure."""

import argparse
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def within(kind: Callable[[str], Number], low: Number, high: Number) -> Callable[[str], Number]:
    """An argparse type: a number from `low` to `high`."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = high + high  # out of range, as is everything that is no number
        if low <= value <= high:
            return value
        raise argparse.ArgumentTypeError(f"must be a number from {low:,} to {high:,}, not {text!r}")

    return parse
