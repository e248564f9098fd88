"""What is being done, how fast and how long still: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress

_LINE_EVERY_S = 10.0


class Progress:
    """Shows a person how a run is going."""

    def __init__(self, quiet: bool = False) -> None:
        """`quiet` is for the hosts other than the first, which speaks for all."""
        self._console = rich.console.Console(
            stderr=True, highlight=False, soft_wrap=True, quiet=quiet
        )

    def say(self, line: str) -> None:
        """Prints one line."""
        self._console.print(line, markup=False)

    @contextlib.contextmanager
    def task(
        self, name: str, total: int, unit: str, already: int = 0
    ) -> Iterator[Callable[..., None]]:
        """Shows a piece of work; yields advance(units, note).

        Args:
          name: what it is.
          total: how many `unit`s it has.
          already: how many of them were done before.
        """
        started = shown = time.monotonic()
        done = already
        bar = None
        if self._console.is_terminal:
            columns = (
                rich.progress.TextColumn("{task.description:<28}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeRemainingColumn(compact=True),
                rich.progress.TextColumn("{task.fields[note]}"),
            )
            bar = rich.progress.Progress(*columns, console=self._console, transient=True)
            row = bar.add_task(name, total=total, completed=already, note="")

        def advance(units: int, note: str = "") -> None:
            nonlocal done, shown
            done += units
            if bar is not None:
                bar.update(row, advance=units, note=note)
                return
            now = time.monotonic()
            if now - shown >= _LINE_EVERY_S and already < done < total:
                left = (now - started) / (done - already) * (total - done)
                self.say(f"{name}: {done}/{total} {unit}, {left:.0f} s left  {note}".rstrip())
                shown = now

        with bar or contextlib.nullcontext():
            yield advance
        seconds = time.monotonic() - started
        rate = f", {(done - already) / seconds:.1f} {unit}/s" if seconds > 0.05 else ""
        resumed = f" ({already} were there)" if already else ""
        self.say(f"{name}: {done} {unit} in {seconds:.1f} s{rate}{resumed}")
