"""Parts of a page that a program writes: what stands between two marks."""

from __future__ import annotations


def put(page: str, text: str, begin: str, end: str) -> str:
    """A page with `text` between the marks. Raises ValueError if it does not have each once, in this order."""
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed or begin in rest or end in head + tail:
        raise ValueError(f"the page must have {begin} once, and {end} once behind it")
    return f"{head}{begin}\n{text}\n{end}{tail}"


def taken(page: str, begin: str, end: str) -> str:
    """What stands between the marks."""
    return page.partition(begin)[2].partition(end)[0].strip("\n")
