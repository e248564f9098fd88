"""Between text and token ids: the chat template, and what a completion says.

The rule of the house is that the ids sampled are the ids stored, scored and trained on. So a
conversation is never rendered again: `Chat.first` gives the ids of the first user message,
`Chat.next` the ids that a further user message adds after a completion, and a state is their
concatenation with the sampled completions in between.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mucode_jax.core.code_block import extract_code

# Templates that write today's date get this one instead, so that a prompt is the same every day.
# It comes as `date_string`, or from `strftime_now`, which goes before the template: transformers
# hands templates no function.
_DATE = datetime.datetime(2024, 7, 26)
_DATED = "".join(
    f"|replace('%{code}', '{_DATE.strftime(f'%{code}')}')"
    for code in ("-d", "-m", "-H", "-I", "-M", "-S", *"aAbBcCdDeFgGhHIjmMnprRsStTuUVwWxXyY")
)
_STRFTIME_NOW = f"{{% macro strftime_now(format) %}}{{{{ format{_DATED} }}}}{{% endmacro %}}\n"
_ASKED, _MARK = "MESSAGE-GOES-HERE", "COMPLETION-GOES-HERE"


def shorten(text: str, limit: int) -> str:
    """`text` with its middle replaced by a mark where it is longer than `limit` characters.

    Where there is not even room for the mark, nothing is left.
    """
    if len(text) <= limit:
        return text
    mark = "\n[...]\n"
    keep = limit - len(mark)
    if keep < 0:
        return ""
    return text[: keep - keep // 2] + mark + (text[-(keep // 2) :] if keep // 2 else "")


class Chat:
    """A checkpoint's tokenizer and chat template, read as token ids.

    Conversations hold messages of the user and of the assistant, never one of the system: a
    template that knows no system message, or drops it, takes nothing away.

    Attributes:
      eot_ids: the ids that end a turn; the first is the one the template closes a completion with.
      vocab_size: one more than the tokenizer's highest id.
    """

    def __init__(
        self, tokenizer: Any, eot_ids: Sequence[int] = (), code_block: str = "commonmark"
    ) -> None:
        """Reads the template once.

        Args:
          tokenizer: a `transformers` tokenizer with a chat template.
          eot_ids: further ids that end a turn (from the checkpoint's generation config).
          code_block: the rule by which a completion's code is found (`code_block.extract_code`).

        Raises:
          ValueError: no chat template, one that cannot be used or drops the user's or the
            assistant's text, or no end-of-turn token.
        """
        self._tokenizer = tokenizer
        self._code_block = code_block
        name = getattr(tokenizer, "name_or_path", "") or "the tokenizer"
        if not tokenizer.chat_template:
            raise ValueError(
                f"{name} has no chat template; add chat_template.jinja to its directory, or use "
                "the instruct version of the model"
            )
        known = {int(i) for i in eot_ids}
        if tokenizer.eos_token_id is not None:
            known.add(int(tokenizer.eos_token_id))
        if not known:
            raise ValueError(f"{name} names no end-of-turn token; set eos_token in its config")
        try:
            self._template = tokenizer.get_chat_template()
            if "strftime_now" in self._template:
                self._template = _STRFTIME_NOW + self._template
            closed = self._render([("user", _ASKED), ("assistant", _MARK), ("user", _ASKED)])
        except Exception as error:  # whatever the template raises
            raise ValueError(f"the chat template of {name} cannot be used ({error})") from error
        for whose, text, times in (("user", _ASKED, 2), ("assistant", _MARK, 1)):
            if closed.count(text) != times:
                raise ValueError(
                    f"the chat template of {name} drops a message of the {whose}, or shows it twice"
                )
        after = closed.split(_MARK)[1]
        ends = [
            (after.find(token), token_id)
            for token_id in sorted(known)
            if (token := tokenizer.decode([token_id])) and token in after
        ]
        if not ends:
            raise ValueError(
                f"the chat template of {name} closes the assistant's message with "
                f"{after[:30]!r}, which holds none of its end-of-turn tokens {sorted(known)}"
            )
        closing = min(ends)[1]
        self._closing_text = tokenizer.decode([closing])
        self.eot_ids = (closing, *sorted(known - {closing}))
        self.vocab_size = 1 + max(tokenizer.get_vocab().values())

    def _render(self, messages: Sequence[tuple[str, str]]) -> str:
        return self._tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in messages],
            tokenize=False,
            chat_template=self._template,
            add_generation_prompt=True,
            date_string=f"{_DATE:%d %b %Y}",
        )

    def _ids(self, text: str) -> np.ndarray:
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False), np.int32)

    def first(self, prompt: str) -> np.ndarray:
        """int32 [P]: a conversation that opens with `prompt`, ready for the first completion."""
        return self._ids(self._render([("user", prompt)]))

    def next(self, message: str) -> np.ndarray:
        """int32 [P]: what a further user message adds after a completion and its end of turn."""
        text = self._render([("user", "a"), ("assistant", _MARK), ("user", message)])
        after = text.split(_MARK, 1)[1]
        return self._ids(after.split(self._closing_text, 1)[1])

    def next_within(self, template: str, parts: dict[str, str], limit: int) -> np.ndarray:
        """As `next` for a filled template, its parts shortened in the middle to `limit` ids.

        Raises:
          ValueError: the template does not fit even with empty parts.
        """
        longest = max((len(part) for part in parts.values()), default=0)
        while True:
            message = template
            for name, part in parts.items():
                message = message.replace("{" + name + "}", shorten(part, longest))
            ids = self.next(message)
            if len(ids) <= limit:
                return ids
            if longest == 0:
                raise ValueError(
                    f"the feedback message alone takes {len(ids)} tokens, more than "
                    f"max_feedback_tokens={limit}; raise rollout.max_feedback_tokens"
                )
            longest = longest * limit // (len(ids) + 1) if longest > 8 else 0

    def completion(self, text: str) -> np.ndarray:
        """int32 [C]: a completion that was written by somebody else, with its end of turn."""
        return np.append(self._ids(text), self.eot_ids[0]).astype(np.int32)

    def message(self, ids: np.ndarray, *, first: bool) -> str:
        """The user's message that `first`, or `next`, made into ids."""
        before, after = self._around[0 if first else 1]
        return self.text(ids).removeprefix(before).removesuffix(after)

    @functools.cached_property
    def _around(self) -> list[list[str]]:
        """What the template puts before and after a first message and a further one."""
        return [self.text(ids).split(_MARK) for ids in (self.first(_MARK), self.next(_MARK))]

    def text(self, ids: np.ndarray) -> str:
        """The text of completion ids, without special tokens; broken UTF-8 becomes U+FFFD."""
        return self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=True)

    def code(self, text: str) -> str:
        """The code in a completion's text."""
        return extract_code(text, self._code_block)
