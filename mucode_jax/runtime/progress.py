"""What is being done, how fast, how long still: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress

_LINE_EVERY_S = 10.0


class Progress:
    """Tells a person how a run is going."""

    def __init__(self, quiet: bool = False) -> None:
        """`quiet` is for the hosts beside the first, which speaks for all."""
        self._console = rich.console.Console(
            stderr=True, highlight=False, soft_wrap=True, quiet=quiet
        )

    def say(self, text: str) -> None:
        """Prints one line."""
        self._console.print(text, markup=False)

    @contextlib.contextmanager
    def task(
        self, name: str, total: int, unit: str, already: int = 0
    ) -> Iterator[Callable[..., None]]:
        """Shows a piece of work; yields advance(units, note).

        Args:
          name: what it is.
          total: how many `unit`s it has.
          already: how many of them are done.
        """
        started = time.monotonic()
        done = already
        if self._console.is_terminal:
            columns = (
                rich.progress.TextColumn("{task.description:<28}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeRemainingColumn(compact=True),
                rich.progress.TextColumn("{task.fields[note]}"),
            )
            bar = rich.progress.Progress(*columns, console=self._console, transient=True)
            with bar:
                row = bar.add_task(name, total=total, completed=already, note="")

                def advance(units: int, note: str = "") -> None:
                    nonlocal done
                    done += units
                    bar.update(row, advance=units, note=note)

                yield advance
        else:
            told = started

            def advance(units: int, note: str = "") -> None:
                nonlocal done, told
                done += units
                now = time.monotonic()
                if now - told >= _LINE_EVERY_S and already < done < total:
                    left = (now - started) / (done - already) * (total - done)
                    self.say(f"{name}: {done}/{total} {unit}, {left:.0f} s left  {note}".rstrip())
                    told = now

            yield advance
        seconds = time.monotonic() - started
        rate = f", {(done - already) / seconds:.1f} {unit}/s" if seconds > 0.05 else ""
        resumed = f" ({already} were there)" if already else ""
        self.say(f"{name}: {done} {unit} in {seconds:.1f} s{rate}{resumed}")
