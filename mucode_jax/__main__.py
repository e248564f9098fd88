"""The commands of the package.

python -m mucode_jax COMMAND …        the same as python -m mucode_jax.COMMAND …
mucode COMMAND …                      the same, as the console script
"""

from __future__ import annotations

import runpy
import sys

import mucode_jax
from mucode_jax.runtime.command import show

COMMANDS = {
    "main": "run a whole experiment: roll out, train, evaluate, report",
    "solve": "solve one problem of yours, turn by turn",
    "grade": "grade programs that were made elsewhere, against any benchmark",
    "score": "add a verifier's score to prompts and completions",
    "export": "take a trained model out of a work directory, with a model card",
    "report": "write a run's report again; compare several runs",
    "sandbox": "run untrusted programs in isolation",
    "aot": "compile an experiment ahead of time for a TPU slice; no TPU needed",
}


def usage() -> str:
    """The commands, one per line."""
    lines = [f"  {name:<9}{about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mucode COMMAND [FLAGS]   (or python -m mucode_jax.COMMAND [FLAGS])",
            "",
            *lines,
            "",
            "mucode COMMAND --help shows a command's flags and examples; mucode --version.",
        ]
    )


def main() -> int:
    """Runs the command that `sys.argv` names, which exits with its own status; else returns one."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        return show(usage())
    if name == "--version":
        return show(f"mucode_jax {mucode_jax.__version__}")
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"mucode: error: unknown command {name!r}; the commands are {known}", file=sys.stderr)
        return 2
    del sys.argv[1]
    runpy.run_module(f"mucode_jax.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
