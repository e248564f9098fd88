#!/usr/bin/env bash
# transformers 5.24.0, jinja2 3.1.6.
#
# `apply_chat_template(messages, **kwargs)` turns what it is given for the template into plain data
# first. A function becomes the text "<function>", without a warning. Given under the name of one of
# the template's own functions it takes that one's place: with `strftime_now=` a template that asks
# for the date, as Llama 3's do, ends in "TypeError: 'str' object is not callable".
#
# One would expect that a function stays one, or is refused: handing in a fixed clock is the natural
# way to have a prompt that does not change at midnight. (Llama 3.1's templates take a
# `date_string` instead; a template that has no such name must be rendered by one's own Jinja.)
#
# Output:
#   its own strftime_now: four digits
#   a function is shown as <function>, and is called: TypeError: 'str' object is not callable
#   strftime_now that was given: TypeError: 'str' object is not callable
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6

HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - "$folder" <<'PY'
import re
import sys

import tokenizers
import transformers

print("transformers", transformers.__version__)
path = f"{sys.argv[1]}/tokenizer.json"
words = tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>")
tokenizers.Tokenizer(words).save(path)
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=path)


def rendered(template, **given):
    tokenizer.chat_template = template
    messages = [{"role": "user", "content": "Sort."}]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **given)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def clock(form):
    return "1999"


year = rendered("{{ strftime_now('%Y') }}")
shown = rendered("{{ clock }}", clock=clock)
called = rendered("{{ clock('%Y') }}", clock=clock)
own = rendered("{{ strftime_now('%Y') }}", strftime_now=clock)
print("its own strftime_now:", "four digits" if re.fullmatch("[0-9]{4}", year) else year)
print(f"a function is shown as {shown}, and is called: {called}")
print("strftime_now that was given:", own)
refused = "TypeError: 'str' object is not callable"
as_said = re.fullmatch("[0-9]{4}", year) and (shown, called, own) == ("<function>", refused, refused)
sys.exit(not as_said)
PY
