"""The code in a completion: which part of what a model wrote is the program.

Every completion has an outcome, whatever a generator writes. An empty one is the empty program,
which lacks what the tests call. Prose, or one character a thousand times, is a program that does
not parse or does not load. Pieces of broken UTF-8 have become U+FFFD (`Chat.text`), which no Python
program holds outside a string. Each of these is an error of the program, never of the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import markdown_it
from markdown_it.rules_block import StateBlock, fence
from markdown_it.token import Token

_REASONING = re.compile(
    r"(?<![\"'`\w])<(think(?:ing)?)>.*?(?:</\1>(?:[ \t]*\r?\n)*|\Z)"
    r"|\A.*(?:^[ \t]*</think(?:ing)?>|</think(?:ing)?>[ \t]*$)",  # the prompt opened it
    re.S | re.M | re.I,
)
_PYTHON = re.compile(r"\W*(?:i?python|py)[\d.]*(?![\w-])\W*", re.I)
_BEHIND_TEXT = re.compile(
    r".*[^\s`~][ \t]*(?=(?:`{3,}|~{3,})(?:i?python|py)[\d.]*[ \t]*$)"
    r"|[^`~]*[^\s`~][ \t]*(?=(?:`{3,}|~{3,})[ \t]*$)",
    re.I,
)
# A tagged block whose code is indented less than its fence, which ends it by CommonMark's rules.
_OUTDENTED = re.compile(
    r"^[^\n`~]*(`{3,}+|~{3,}+)[ \t]*(?:i?python|py)[\d.]*[ \t]*\n(.*?)(?:^[ \t]*\1|\Z)",
    re.S | re.M | re.I,
)
_LINE_END = re.compile(r"\r\n?|\n")
_FIRST_LINE = re.compile(r"^[ \t]*(?![#\s]).*", re.M)
_STATEMENT = re.compile(
    r"[ \t]*(?:(?:async def|class|def|import)\s+\w|from\s+[\w.]+\s+import\b|@\w|return\b"
    r"|(?:for|if|try|while|with)\b.*:|\"\"\"|'''"
    r"|[\w.]+\((?:.*[\])}([{,])?[ \t]*$"
    r"|[\w.\[\]]+(?:,\s?[\w.\[\]]+)*\s*(?:[-+*/%&|^]|\*\*|//)?=(?!=))"
)
_ATTRIBUTES = re.compile(r"(?:[\w-]+=(?:\"[^\"]*\"|\S+)\s*)*")
_PUBLISHED = re.compile(r"```python\n(.*?)(?:```|\Z)", re.S)


def extract_code(text: str, rule: str = "commonmark") -> str:
    """The code in a completion. Reasoning (<think>…</think>) is none of it.

    By the rule "commonmark" blocks are those of CommonMark; a fence that opens behind text counts,
    too, as does one that closes behind code, and a block that is never closed reaches to the end.
    The code is the first of these that there is:

    1. the text before the first fence, where it begins as Python does and the fence has no tag: it
       closes a block that was never opened;
    2. the first block tagged python (py, python3, ipython, …) that is not empty;
    3. the first untagged block that begins as Python does, or else that is not empty;
    4. the first indented block that begins as Python does, unless the text itself does;
    5. the whole text.

    By the rule "published", that of the published implementation, it is what stands between the
    first "```python" line and the next three backticks, without outer blanks, nothing where there
    are none, and the whole text where there is no such line.
    """
    text = _REASONING.sub("", text)
    if rule == "published":
        match = _PUBLISHED.search(text)
        return text if match is None else match[1].strip() if match[0].endswith("```") else ""
    return _code(text, _NESTED)


_NESTED = 3  # blocks within blocks are looked into so deep


def _code(text: str, depth: int) -> str:
    tokens = _MARKDOWN.parse(text)
    fences = _fences(tokens)
    is_python = _begins_as_python(text)
    if is_python and fences and not fences[0].info.strip():
        return _before(text, fences[0])
    blocks = list(_blocks(fences, depth))
    tagged, untagged = ([code for tag, code in blocks if tag is wanted] for wanted in (True, False))
    if tagged:
        tagged += [match[2] for match in _OUTDENTED.finditer(text)]
    untagged.sort(key=_begins_as_python, reverse=True)
    if blocks:
        return next(filter(str.strip, tagged + untagged), "")
    if is_python:
        return _closed(text, "`")
    for token in tokens:
        if token.type == "code_block":
            code = _code(token.content, depth - 1) if depth else token.content
            if _begins_as_python(code):
                return code
    return text


def _blocks(fences: Sequence[Token], depth: int) -> Iterator[tuple[bool, str]]:
    """(whether it is tagged python, code) of each block that has that tag or none."""
    for token in fences:
        tag = _PYTHON.match(token.info)
        code = _closed(token.content, token.markup[0])
        beside = token.info[tag.end() :] if tag else token.info.strip()
        if _begins_as_python(beside) and not _ATTRIBUTES.fullmatch(beside):
            code, beside = f"{beside}\n{code}", ""
        elif depth and not _begins_as_python(code) and (inner := _fences(_MARKDOWN.parse(code))):
            yield from _blocks(inner, depth - 1)
            continue
        if tag or not beside:
            yield tag is not None, code


def _fences(tokens: Sequence[Token]) -> list[Token]:
    return [token for token in tokens if token.type == "fence"]


def _before(text: str, token: Token) -> str:
    """What stands before a fence, on its own line too."""
    first = token.map[0] if token.map else 0
    lines = [*_LINE_END.split(text)[:first], token.meta.get("text", "").rstrip()]
    return "\n".join(lines).rstrip("\n") + "\n"


def _closed(code: str, mark: str) -> str:
    """Code up to a fence that closes behind it, the only one on its line.

    Before another that closes something it is part of the code: of a docstring.
    """
    fence_line = re.compile(rf"^[ \t]*{mark * 3}+[ \t]*$", re.M)
    begin = max((match.end() for match in fence_line.finditer(code)), default=0)
    behind = re.compile(rf"^[^{mark}\n]*[^\s\"'{mark}](?=[ \t]*{mark * 3}+[ \t]*$)", re.M)
    match = behind.search(code, begin)
    return code if match is None else code[: match.end()] + "\n"


def _begins_as_python(text: str) -> bool:
    """Whether the first line that is neither blank nor a comment looks like a statement."""
    first = _FIRST_LINE.search(text)
    return first is not None and _STATEMENT.match(first[0]) is not None


def _fence_behind_text(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """CommonMark's rule for fences, from where a line's fence begins."""
    begin = state.bMarks[start] + state.tShift[start]
    text = _BEHIND_TEXT.match(state.src[begin : state.eMarks[start]])
    if text is None:
        return False
    state.tShift[start] += text.end()
    is_fence = fence(state, start, end, silent)
    state.tShift[start] -= text.end()
    if is_fence and not silent:
        state.tokens[-1].meta["text"] = text[0]
    return is_fence


# Blocks alone are read, and those that HTML would swallow: models write tags around code.
_MARKDOWN = markdown_it.MarkdownIt("commonmark")
_MARKDOWN.disable(["html_block", "reference", "inline", "text_join"])
_MARKDOWN.block.ruler.after(
    "list", "fence_behind_text", _fence_behind_text, {"alt": ["paragraph", "blockquote"]}
)
