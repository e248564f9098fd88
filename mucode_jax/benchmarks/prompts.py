"""The texts of the first user message and of the message after a failed turn.

Their content is that of the published prompts (problem, public tests, "return only the code");
the words are this project's. Without tests the message gives the signature instead, as published:
tests call a function by its name, and nothing else would tell it.
"""

from __future__ import annotations

FEEDBACK = (
    "The code does not pass. This is what happened:\n\n{feedback}\n\n"
    "Correct it, and reply again with the whole code in a single ```python block."
)
COMPAT_FEEDBACK = "Feedback: {feedback}"

_REPLY = (
    "Reply with the code alone, including the imports it needs and leaving out tests and "
    "explanations, in a single block:\n```python\ncode\n```"
)


def function_prompt(text: str, *, preamble: str = "", tests: str = "", signature: str = "") -> str:
    """The first message for a problem whose solution is a function.

    Args:
      text: the problem, or the function's head with its docstring.
      preamble: what stands before the program, shown where there is any.
      tests: the public tests as text; "" shows none.
      signature: the heads of what the tests call, shown where it is given.
    """
    parts = ["Solve this programming problem in Python:", text.strip()]
    if preamble:
        parts += ["These definitions come before your code:", preamble]
    if signature:
        parts += ["Use these definitions:", signature]
    if tests.strip():
        parts += ["The code has to pass these tests:", tests.strip()]
    return "\n\n".join([*parts, _REPLY])


def program_prompt(text: str) -> str:
    """The first message for a problem whose solution reads standard input."""
    request = (
        "Solve this competitive programming problem with a Python program that reads standard "
        "input and writes standard output:"
    )
    return "\n\n".join([request, text.strip(), _REPLY])
