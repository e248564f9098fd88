"""The code in a completion: by CommonMark's rules, whatever surrounds it, in linear time."""

import json
import textwrap
import time

import hypothesis
import pytest
from hypothesis import strategies

from mucode_jax.core.code_block import extract_code

F = "def f(x):\n    return x + 1\n"
DRAFT = "```python\ndef f(x):\n    return 0\n```\n"
USE = "```python\nprint(f(1))\n```\n"
FENCED = f"```python\n{F}```\n"
DOCUMENTED = (
    'def f(x):\n    """Adds one.\n\n    ```\n    f(1)\n    ```\n    """\n    return x + 1\n'
)


def indented(text, columns):
    return textwrap.indent(text, " " * columns)


@pytest.mark.parametrize(
    "text",
    [
        F,
        FENCED,
        FENCED.rstrip(),
        FENCED.replace("\n", "\r\n"),
        f"```\n{F}```\n",
        f"Sure:\n\n```py\n{F}```\nDone.",
        f"{FENCED}\n{USE}",  # the first of two
        f"```bash\npip install x\n```\n{FENCED}",
        # Fences in lists, quotes and HTML.
        f"1. So:\n\n{indented(FENCED, 3)}",
        f"- So:\n{indented(FENCED, 4)}",
        f"- a\n  - b:\n\n{indented(FENCED, 4)}\n  - c\n",
        f"1. Here: ```python\n{indented(F, 3)}   ```\n",
        f"  {FENCED}".replace("\n", "\n  "),
        f"1. So:\n\n   ```python\n{F}   ```\n\nIt adds one.\n",  # indented less than its fence
        f"- ```python\n{F}  ```\n",
        textwrap.indent(FENCED, "> "),
        f"<answer>\n{FENCED}</answer>\n",
        f"<details><summary>Code</summary>\n{FENCED}</details>\n",
        # Before other blocks, untagged or empty.
        f"For example:\n```\nf(1) is 2\n```\n{FENCED}",
        f"```\n1 -> 2\n```\nso\n```\n{F}```\n",
        f"```python\n```\n\n{FENCED}",
        # Fences that have no partner.
        f"{F}```\nThis adds one.\n",
        f"{F}```\nDone",
        f"{F}```",
        f"{F}```\n\nFor example:\n\n{USE}",
        f"```python\n{F}",
        f"```python\n{F.rstrip()}```\n",
        f"```python\n{F.rstrip()}```\nFor example:\n{USE}",
        # A fence that opens behind text.
        f"Here is the code: ```python\n{F}```\nIt adds one.\n",
        f"Sure!\nHere is the code: ```python\n{F}```\n",
        f"### Code ````python\n{F}````\n",
        f"Here is the code: ```\n{F}```\nIt adds one.\n",
        f"{F.rstrip()}```\nIt adds one.\n",
        # Other fences and tags.
        f"~~~python\n{F}~~~\n",
        f"~~~~ python\n{F}",
        f"````\n{FENCED}````\n",
        f"````markdown\nSo:\n{FENCED}````\n",
        *(
            f"```{tag}\n{F}```\n"
            for tag in ("Python", "python3", "py3", "python3.11", "ipython", "ipython3", " python")
        ),
        *(
            f"```{tag}\n{F}```\n"
            for tag in ("{python}", "{.python .x}", "python:f.py", "python copy")
        ),
        f'```python title="f.py" linenums="1"\n{F}```\n',
        f"```python {F}```\n",
        f"```{F}```\n",
        # Code by indentation alone.
        f"It is this:\n\n{indented(F, 4)}\nIt adds one.\n",
        indented(f"It is this:\n{FENCED}", 4),
        # Reasoning, with drafts.
        f"<think>\nFirst:\n{DRAFT}No.\n</think>\n\n{FENCED}",
        f"<think>{DRAFT}</think>\n{F}",
        f"First:\n{DRAFT}No.\n</think>\n\n{FENCED}",
        f"Let me see. <thinking>\n{DRAFT}</thinking>\n{FENCED}",
    ],
)
def test_the_code_is_found(text):
    assert extract_code(text) == F


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ""),
        ("x = 1\n", "x = 1\n"),
        ("    return x + 1", "    return x + 1"),
        ("```python\nx = 1\ny = 2", "x = 1\ny = 2"),  # cut short
        ("```python\n", ""),
        ("```", ""),
        ("```\n```\n", ""),
        (f"<think>\n{DRAFT}", ""),
        ("a" * 1000, "a" * 1000),
        ("Here is the function you asked for.", "Here is the function you asked for."),
        ("def f(x:\n    y = 1\n\n    return y", "def f(x:\n    y = 1\n\n    return y"),
        (
            '```python\ndef f(x):\n    """So: ```\n    f(1)\n    ```\n    """\n```\n',
            'def f(x):\n    """So: ```\n    f(1)\n    ```\n    """\n',
        ),
        ("f(x) must be:\n```\ng(x)\n```\n", "g(x)\n"),
        (DOCUMENTED, DOCUMENTED),
        (f"```python\n{DOCUMENTED}```\n", DOCUMENTED),
        ("1. So:\n\n" + indented(f"```python\n{DOCUMENTED}```", 3), DOCUMENTED),
        (
            '```python\nt = re.sub("<think>.*?</think>", "", s)\n```',
            't = re.sub("<think>.*?</think>", "", s)\n',
        ),
    ],
)
def test_whatever_is_written_has_a_code(text, code):
    assert extract_code(text) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (F, F),
        (f"So:\n{FENCED}{USE}", F.strip()),
        ("```python\nx = '```'\n```", "x = '"),
        (f"```python\n{F}", ""),
        (f"```py\n{F}```", f"```py\n{F}```"),
        (f"<think>{DRAFT}</think>\n{FENCED}", F.strip()),
    ],
)
def test_the_published_rule_takes_what_stands_before_the_next_three_backticks(text, code):
    assert extract_code(text, "published") == code


STATEMENTS = strategies.sampled_from(
    [
        "x = [1, 2]\n",
        "if x:\n    y = 1\n\n    z = 2\nelse:\n    y = -1\n",
        "s = 'a`b``c ~~'\n",
        "t = '''\n- a\n> b\n# c\n'''\n",
        "# a comment\n",
        "\n",
        "for i in range(3):\n\tprint(i)\n",
        "u = '<b>' * 2\n",
        "1 < 2 > 0\n",
    ]
)
PROSE = strategies.sampled_from(
    ["", "Here it is:\n\n", "# Solution\n\n", "1. First this.\n2. Then:\n\n", "Is `x` fine?\n\n"]
)
OTHERS = strategies.sampled_from(
    [
        "",
        "```\n```\n\n",
        "```bash\npip install x\n```\n\n",
        "<think>\nHm.\n" + DRAFT + "</think>\n\n",
    ]
)


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(strategies.data())
def test_any_code_comes_out_of_any_wrapping(data):
    draw = data.draw
    code = "def f(x):\n    return x\n" + "".join(draw(strategies.lists(STATEMENTS, max_size=5)))
    code = code.rstrip("\n") + "\n"
    fence = draw(strategies.sampled_from("`~")) * draw(strategies.integers(3, 5))
    tag = draw(
        strategies.sampled_from(["python", "py", "Python3", " py3", "ipython", "{python}", ""])
    )
    closing = draw(strategies.sampled_from([f"{fence}\n", fence, ""]))
    block = f"{fence}{tag}\n{code}{closing}"
    for _ in range(draw(strategies.integers(0, 3))):
        marker = draw(strategies.sampled_from(["- ", "1. ", "> "]))
        if marker == "> ":
            block = textwrap.indent(block, marker, lambda line: True)
        else:
            block = f"{marker}So:\n\n" + indented(block, len(marker))
    more = ["", "\n\nIt works.\n"] + ([f"\n\n{USE}"] if tag else [])
    after = draw(strategies.sampled_from(more)) if closing else ""
    assert extract_code(draw(OTHERS) + draw(PROSE) + block + after) == code


def test_real_programs_come_out_of_every_wrapping(data_dir):
    lines = (data_dir / "mbpp.jsonl").read_text().splitlines()
    for line in lines:
        code = "\n".join(json.loads(line)["code"].splitlines()).rstrip() + "\n"
        listed = textwrap.indent(code, "   ", lambda line: True)
        for text in (
            f"```python\n{code}```\nDone.",
            f"~~~py\n{code}",
            f"```\n{code}```\n",
            f"{code}```\nThis is it.\n",
            f"Here is the code: ```python\n{code}```\n",
            f"1. So:\n\n   ```python\n{listed}   ```\n",
            f"````markdown\n```python\n{code}```\n````",
            code,
        ):
            assert extract_code(text) == code


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(
    strategies.lists(
        strategies.sampled_from(
            [
                *"`~>-*#(=\n\t \r\0\ufffd",
                "```",
                "```python\n",
                "    ",
                "1. ",
                "<think>",
                "</think>",
                F,
            ]
        )
    ),
    strategies.sampled_from(["commonmark", "published"]),
)
def test_nothing_makes_it_fail(parts, rule):
    assert isinstance(extract_code("".join(parts), rule), str)


@pytest.mark.parametrize(
    "piece",
    [
        *("`", "~", ">", "- ", "1. ", "- a\n", "a\n", "a\n=\n", " ", "\n", "\n    a", "[", "a, "),
        *("```\n", "```python\n", "a ```python\n", "a ```python\nx\n```\n", "~~~\n```\n", "a```"),
        *("<think>", "</think>", "<think>\n</think>\n", "````\n```\n", "a\n```\n", "- ```python\n"),
    ],
)
def test_the_time_is_proportional_to_the_length(piece):
    def seconds(length):
        text = (piece * length)[:length]
        begun = time.process_time()
        extract_code(text)
        return time.process_time() - begun

    assert min(seconds(100_000) for _ in range(2)) < 10 * max(seconds(25_000), 0.02)
