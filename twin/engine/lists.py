"""Doubly linked lists of requests: joining and leaving one takes the same time wherever in the list."""

from __future__ import annotations

from twin.compiled import inlined
from twin.engine.state import NONE, Lists


@inlined
def append(lists: Lists, which: int, r: int) -> None:
    """Request `r` joins the end of list `which`."""
    ends, link = lists.ends[which], lists.links[r]
    link.before, link.after = ends.last, NONE
    if ends.last != NONE:
        lists.links[ends.last].after = r
    else:
        ends.first = r
    ends.last = r


@inlined
def prepend(lists: Lists, which: int, r: int) -> None:
    """Request `r` joins the front of list `which`."""
    ends, link = lists.ends[which], lists.links[r]
    link.before, link.after = NONE, ends.first
    if ends.first != NONE:
        lists.links[ends.first].before = r
    else:
        ends.last = r
    ends.first = r


@inlined
def unlink(lists: Lists, which: int, r: int) -> None:
    """Request `r` leaves list `which`."""
    ends, link = lists.ends[which], lists.links[r]
    if link.before != NONE:
        lists.links[link.before].after = link.after
    else:
        ends.first = link.after
    if link.after != NONE:
        lists.links[link.after].before = link.before
    else:
        ends.last = link.before
