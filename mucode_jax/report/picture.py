"""A picture of a report's first screens, taken by a browser on this machine."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def take(page: pathlib.Path, out: pathlib.Path, width: int = 1280, height: int = 1240) -> None:
    """Writes `out`, a PNG of the upper part of `page` in its light colours.

    Raises:
      ValueError: there is no browser, or it took no picture.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ValueError("a picture needs chromium or Chrome on the PATH (apt install chromium)")
    with tempfile.TemporaryDirectory() as home:
        command = [
            browser,
            "--headless",
            "--no-sandbox",  # a page of ours, without scripts
            "--hide-scrollbars",
            f"--user-data-dir={home}",
            f"--window-size={width},{height}",
            f"--screenshot={out.resolve()}",
            page.resolve().as_uri(),
        ]
        out.unlink(missing_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if not out.is_file():
        said = (done.stderr.strip().splitlines() or ["no word why"])[-1]
        raise ValueError(f"{browser} took no picture: {said}")
