"""Which pages of the cache hold which conversations: reference counts, no arrays.

The cache is a pool of pages (`llama.PAGE` columns each). A conversation's columns lie in a list of
them; conversations that begin alike share the pages of their beginning, and each copies only the
last, partly filled page before it writes there.
"""

from __future__ import annotations

import dataclasses

from mucode_jax.models.llama import PAGE


def pages_of(columns: int) -> int:
    """How many pages hold so many columns."""
    return -(-columns // PAGE)


@dataclasses.dataclass(eq=False)
class Columns:
    """Where the beginning of a conversation is cached."""

    pages: list[int] = dataclasses.field(default_factory=list)  # in order; some may be empty yet
    count: int = 0  # how many columns are filled


class Pool:
    """The pages of a cache, each with the number of `Columns` that it belongs to."""

    def __init__(self, pages: int) -> None:
        self._free = list(range(pages))[::-1]
        self._users = [0] * pages

    @property
    def free(self) -> int:
        return len(self._free)

    def reserve(self, columns: Columns, count: int) -> list[tuple[int, int]] | None:
        """Makes `columns` ready for writing up to `count` of them.

        Returns the page to copy first, as [(source, target)], or [] where none is; None, and
        nothing is changed, if too few pages are free.
        """
        new = max(0, pages_of(count) - len(columns.pages))
        following = columns.count // PAGE  # the page that is written next
        shared = following < len(columns.pages) and self._users[columns.pages[following]] > 1
        if new + shared > self.free:
            return None
        copies = []
        if shared:
            copies = [(columns.pages[following], self._take())]
            self._users[columns.pages[following]] -= 1
            columns.pages[following] = copies[0][1]
        columns.pages += [self._take() for _ in range(new)]
        return copies

    def share(self, columns: Columns) -> Columns:
        """Another conversation that begins with these columns."""
        pages = columns.pages[: pages_of(columns.count)]
        for page in pages:
            self._users[page] += 1
        return Columns(pages, columns.count)

    def trim(self, columns: Columns) -> None:
        """Frees the pages that are empty."""
        self._drop(columns.pages[pages_of(columns.count) :])
        del columns.pages[pages_of(columns.count) :]

    def release(self, columns: Columns) -> None:
        """Forgets the columns; their pages are free where no other conversation has them."""
        self._drop(columns.pages)
        columns.pages, columns.count = [], 0

    def _take(self) -> int:
        page = self._free.pop()
        self._users[page] = 1
        return page

    def _drop(self, pages: list[int]) -> None:
        for page in reversed(pages):
            self._users[page] -= 1
            if not self._users[page]:
                self._free.append(page)
