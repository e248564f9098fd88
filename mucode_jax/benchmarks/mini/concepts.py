"""What tasks of the embedded suite are made of: small ideas, each with words and with code.

A task is a pipeline over one argument: a list of numbers, the words of a string, or its characters.
Up to four places of the pipeline are filled, each by one concept:

  prepare  a statement that changes the argument first     xs = sorted(xs)
  keep     a condition on an item                          x > 3
  each     an expression that takes an item's place        x * 2
  finish   an expression over the resulting list {L}       sum({L})

A concept with two meanings is ambiguous: its words do not say which, the public test does. Mistakes
are what a beginner writes for it; they make the wrong variants. `familiar` is how often the
pretraining corpus gets the concept right: most are known well, about a third are rare, known but
seldom used, so that a generator trained on that corpus has something definite left to learn.
"""

from __future__ import annotations

import dataclasses

PLACES = ("prepare", "keep", "each", "finish")
KNOWN = 0.87  # `familiar` of an ordinary concept


@dataclasses.dataclass(frozen=True)
class Concept:
    """One idea.

    Attributes:
      name: unique; part of the combination by which splits are held out.
      place: one of `PLACES`.
      words: ways to say it; {k} is a number, {c} and {d} are letters.
      meanings: code for it; two where it is ambiguous.
      mistakes: code for something else.
      familiar: probability that the pretraining corpus writes a meaning of it.
      domains: where it applies ("numbers", "words", "letters"); for `finish` the kinds of items
        that it takes ("int", "word", "char").
      gives: for `each`, the kind of item that it makes.
    """

    name: str
    place: str
    words: tuple[str, ...]
    meanings: tuple[str, ...]
    mistakes: tuple[str, ...]
    familiar: float
    domains: frozenset[str]
    gives: str = ""


def _table(place: str, domains: str, rows: str) -> list[Concept]:
    """Concepts of one place from lines `name | words ; words | meaning ; meaning | mistakes | …`.

    The fifth column, where there is one, holds `familiar` (else `KNOWN`) and, for `each`, the kind
    of items that it makes. A semicolon between spaces separates alternatives, an indented line goes
    on with the one before.
    """
    concepts = []
    for row in rows.strip().replace("\n  ", " ").splitlines():
        name, words, meanings, mistakes, *rest = (cell.strip() for cell in row.split(" | "))
        extra = rest[0].split() if rest else []
        numbers = [float(word) for word in extra if word[0].isdigit()]
        kinds = [word for word in extra if not word[0].isdigit()]
        concepts.append(
            Concept(
                name=name,
                place=place,
                words=tuple(words.split(" ; ")),
                meanings=tuple(meanings.split(" ; ")),
                mistakes=tuple(mistakes.split(" ; ")) if mistakes != "-" else (),
                familiar=numbers[0] if numbers else KNOWN,
                domains=frozenset(domains.split()),
                gives=kinds[0] if kinds else "",
            )
        )
    return concepts


_PREPARE_NUMBERS = """
sorting | once sorted ; after sorting | sorted(xs) | sorted(xs, reverse=True) ; xs
falling | once sorted downwards | sorted(xs, reverse=True) | sorted(xs) ; xs[::-1] | 0.2
headless | ignoring the first item ; after dropping the first | xs[1:] | xs[:-1] ; xs[:1]
tailless | ignoring the last item | xs[:-1] | xs[1:] ; xs[-1:] | 0.25
unique | with repeats removed | sorted(set(xs)) | sorted(xs) ; xs
gaps | for the steps between neighbours | [b - a for a, b in zip(xs, xs[1:])] |
  [a - b for a, b in zip(xs, xs[1:])] ; xs[1:]
pairs | for the sums of neighbours | [a + b for a, b in zip(xs, xs[1:])] |
  [a * b for a, b in zip(xs, xs[1:])] ; xs[1:] | 0.15
evens | at even positions ; taking every second item | xs[::2] | xs[1::2] ; xs[2:]
odds | at odd positions | xs[1::2] | xs[::2] ; xs[1:] | 0.12
repeating | with the list repeated | xs + xs | xs * 3 ; xs
"""

_KEEP_NUMBERS = """
above | above {k} ; greater than {k} | x > {k} | x >= {k} ; x < {k}
least | of at least {k} ; no less than {k} | x >= {k} | x > {k} ; x <= {k} | 0.15
below | below {k} ; less than {k} | x < {k} | x <= {k} ; x > {k}
most | of at most {k} ; no more than {k} | x <= {k} | x < {k} ; x >= {k} | 0.2
even | that are even | x % 2 == 0 | x % 2 == 1
odd | that are odd | x % 2 == 1 | x % 2 == 0
multiple | divisible by {k} ; that are multiples of {k} | x % {k} == 0 | x // {k} == 0 ; x % {k}
indivisible | not divisible by {k} | x % {k} != 0 | x % {k} == 0 ; x // {k} != 0 | 0.25
other | other than {k} ; not equal to {k} | x != {k} | x == {k}
successor | one more than a multiple of {k} | x % {k} == 1 | (x + 1) % {k} == 0 ; x > {k} + 1 | 0.1
twodigit | with two digits | x > 9 | x > 10 ; x > 2 | 0.2
square | whose square exceeds {k}0 | x ** 2 > {k}0 | x * 2 > {k}0 ; x ** 2 >= {k}
double | whose double is below {k} | x * 2 < {k} | x ** 2 < {k} ; x < {k}
near | within two of {k} | abs(x - {k}) <= 2 | abs(x - {k}) < 2 ; x <= {k} + 2 | 0.12
far | more than three away from {k} | abs(x - {k}) > 3 | abs(x + {k}) > 3 ; x > {k} + 3
repeated | that occur more than once | xs.count(x) > 1 | xs.count(x) == 1 ; xs.count(1) > x
single | that occur once | xs.count(x) == 1 | xs.count(x) > 1 ; xs.count(x) < 1 | 0.25
unlikefirst | unlike the first item | x != xs[0] | x == xs[0] ; x != xs[-1]
undermax | smaller than the maximum | x < max(xs) | x <= max(xs) ; x > min(xs)
overmin | larger than the minimum | x > min(xs) | x >= min(xs) ; x < max(xs) | 0.2
average | above the average | x > sum(xs) / len(xs) | x > max(xs) / 2 ; x >= len(xs) | 0.15
between | from 3 to {k}3 | 3 <= x <= {k}3 | 3 < x < {k}3 ; x <= {k}3 | 0.15
past | past {k} | x > {k} ; x >= {k} | x < {k}
upto | up to {k} | x <= {k} ; x < {k} | x > {k}
"""

_EACH_NUMBERS = """
doubled | doubled ; times two | x * 2 | x ** 2 ; x + 2 | int
squared | squared | x ** 2 | x * 2 ; 2 ** x | 0.2 int
plus | plus {k} ; increased by {k} | x + {k} | x * {k} ; x - {k} | int
minus | minus {k} ; decreased by {k} | x - {k} | {k} - x ; x + {k} | int
from | subtracted from {k}0 | {k}0 - x | x - {k}0 ; x - {k} | 0.15 int
times | times {k} ; multiplied by {k} | x * {k} | x + {k} ; x ** {k} | int
halved | halved | x // 2 | x % 2 ; x - 2 | int
modulo | modulo {k} ; as remainders by {k} | x % {k} | x // {k} ; x - {k} | 0.25 int
negated | negated | -x | abs(x) ; 1 - x | int
cubed | cubed | x ** 3 | x * 3 ; 3 ** x | 0.2 int
capped | capped at {k} | min(x, {k}) | max(x, {k}) ; x % {k} | 0.12 int
raised | raised to at least {k} | max(x, {k}) | min(x, {k}) ; x + {k} | int
distance | as distances from {k} | abs(x - {k}) | x - {k} ; abs(x) - {k} | 0.2 int
digit | as last digits | x % 10 | x // 10 ; x - 10 | int
tens | without the last digit | x // 10 | x % 10 ; x - 10 | 0.15 int
parity | as parities | x % 2 | x // 2 ; x * 2 | 0.25 int
short | as gaps to the maximum | max(xs) - x | x - max(xs) ; x - min(xs) | 0.15 int
excess | as excess over the minimum | x - min(xs) | min(xs) - x ; max(xs) - x | int
length | multiplied by the length | x * len(xs) | x + len(xs) ; x * xs[0] | int
counts | as occurrence counts | xs.count(x) | xs.index(x) ; xs[x] | int
places | as positions | xs.index(x) | xs.count(x) ; x - 1 | 0.12 int
power | as powers of two | 2 ** x | x ** 2 ; x * 2 | 0.15 int
text | as strings | str(x) | [x] ; x | word
shifted | shifted by {k} | x + {k} ; x - {k} | x * {k} | int
scaled | scaled by {k} | x * {k} ; x // {k} | x + {k} | int
"""

_PREPARE_TEXT = """
backwards | reading backwards ; after reversing s | s[::-1] | s[1:] ; s
beheaded | without its first letter | s[1:] | s[:-1] ; s[:1]
curtailed | without its last letter | s[:-1] | s[1:] ; s[-1:] | 0.2
swapped | with {c} turned into {d} | s.replace("{c}", "{d}") | s.replace("{d}", "{c}") ; s
erased | with every {c} erased | s.replace("{c}", "") | s.strip("{c}") ; s | 0.15
start | within its first six letters | s[:6] | s[6:] ; s[5:]
"""

_KEEP_WORDS = """
longer | longer than {k} | len(w) > {k} | len(w) >= {k} ; len(w) < {k}
notlonger | of at most {k} letters | len(w) <= {k} | len(w) < {k} ; len(w) >= {k} | 0.15
exactly | of {k} letters | len(w) == {k} | len(w) != {k}
starting | starting with {c} | w[0] == "{c}" | w[-1] == "{c}" ; "{c}" in w
ending | ending in {c} | w[-1] == "{c}" | w[0] == "{c}" ; "{c}" in w | 0.2
with | containing {c} ; with an {c} | "{c}" in w | "{c}" not in w ; w == "{c}"
without | lacking {c} ; without {c} | "{c}" not in w | "{c}" in w ; w != "{c}" | 0.2
evenlong | of even length | len(w) % 2 == 0 | len(w) % 2 == 1
oddlong | of odd length | len(w) % 2 == 1 | len(w) % 2 == 0 | 0.25
alphabetic | before m in the dictionary | w < "m" | w > "m" ; w[-1] < "m"
vowelfirst | with a vowel first | w[0] in "aeiou" | w[-1] in "aeiou" ; w in "aeiou" | 0.12
twice | with a letter twice | len(set(w)) < len(w) | len(set(w)) == len(w) ; len(w) == 2 | 0.12
outer | with {c} at the edge | w[0] == "{c}" ; w[-1] == "{c}" | "{c}" in w
"""

_EACH_WORDS = """
mirrored | spelled backwards ; reversed | w[::-1] | w[1:] ; w[-1] | word
upper | in capitals ; in upper case | w.upper() | w.title() ; w.lower() | word
title | capitalised | w.title() | w.upper() ; w.lower() | 0.2 word
lengths | as lengths | len(w) | len(set(w)) ; len(s) | int
initials | as first letters | w[0] | w[-1] ; w[1] | char
finals | as last letters | w[-1] | w[0] ; w[1:] | 0.15 char
behead | without their first letter | w[1:] | w[:-1] ; w[:1] | word
curtail | without their last letter | w[:-1] | w[1:] ; w[-1:] | 0.15 word
twin | written twice | w * 2 | w + "2" ; [w] * 2 | word
suffix | followed by {c} | w + "{c}" | "{c}" + w ; "{c}" | word
prefix | preceded by {c} | "{c}" + w | w + "{c}" ; "{c}" | 0.2 word
prefixes | cut to {k} letters | w[:{k}] | w[{k}:] ; w[{k}] | word
counted | as counts of {c} | w.count("{c}") | w.find("{c}") ; len("{c}") | 0.15 int
altered | with {c} for {d} | w.replace("{d}", "{c}") | w.replace("{c}", "{d}") ; w + "{c}" |
  0.12 word
variety | as numbers of distinct letters | len(set(w)) | len(w) ; len(s) | 0.2 int
clipped | one letter shorter | w[1:] ; w[:-1] | w[1] | word
marked | marked with {c} | w + "{c}" ; "{c}" + w | "{c}" | word
"""

_KEEP_LETTERS = """
vowels | that are vowels | c in "aeiou" | c not in "aeiou"
consonants | that are not vowels | c not in "aeiou" | c in "aeiou" ; c != "aeiou" | 0.2
digits | that are digits | c.isdigit() | c.isalpha() ; not c.isdigit()
alphas | from the alphabet | c.isalpha() | c.isdigit() ; not c.isalpha() | 0.15
unequal | other than {c} | c != "{c}" | c == "{c}" ; c > "{c}"
earlier | before {c} in the alphabet | c < "{c}" | c <= "{c}" ; c > "{c}"
later | after {c} in the alphabet | c > "{c}" | c >= "{c}" ; c < "{c}" | 0.25
lonely | that occur once | s.count(c) == 1 | s.count(c) > 1 ; s.count(c) < 1 | 0.25
frequent | that occur more than once | s.count(c) > 1 | s.count(c) == 1 ; c.count(s) > 1
among | found in "{c}{d}st" | c in "{c}{d}st" | c not in "{c}{d}st" ; c == "{c}{d}st"
following | {c} and beyond | c >= "{c}" ; c > "{c}" | c < "{c}"
"""

_EACH_LETTERS = """
capital | in capitals ; in upper case | c.upper() | c.title() + c ; c.lower() | char
twofold | written twice | c * 2 | c + "2" ; [c] * 2 | word
tally | as occurrence counts | s.count(c) | s.index(c) ; len(c) | int
index | as positions | s.index(c) | s.count(c) ; s.find(s) | 0.12 int
codes | as character codes | ord(c) | chr(c) ; len(c) | 0.2 int
trailing | followed by {c} | c + "{c}" | "{c}" + c ; "{c}" | word
leading | preceded by {c} | "{c}" + c | c + "{c}" ; "{c}" | 0.2 word
exchange | with {c} for {d} | c.replace("{d}", "{c}") | c.replace("{c}", "{d}") ; c + "{c}" |
  0.15 char
adorned | marked with {c} | c + "{c}" ; "{c}" + c | "{c}" | word
"""

_FINISH_NUMBERS = """
sum | the sum of ; the total of | sum({L}) | len({L}) ; max({L})
parity_sum | the parity of the sum of | sum({L}) % 2 | len({L}) % 2 ; sum({L}) // 2 | 0.15
modulo_sum | the sum modulo {k} of | sum({L}) % {k} | sum({L}) // {k} ; len({L}) % {k}
spread | the range of | max({L}) - min({L}) | max({L}) + min({L}) ; max({L}) | 0.2
top | the {k} largest of | sorted({L})[-{k}:] | sorted({L})[:{k}] ; sorted({L})[{k}:] | 0.15
bottom | the {k} smallest of | sorted({L})[:{k}] | sorted({L})[-{k}:] ; {L}[:{k}]
second | the second largest of | sorted({L})[-2] | sorted({L})[1] ; sorted({L})[2]
secondlow | the second smallest of | sorted({L})[1] | sorted({L})[-2] ; sorted({L})[2] | 0.2
largest | the largest of ; the maximum of | max({L}) | min({L}) ; sum({L})
smallest | the smallest of ; the minimum of | min({L}) | max({L}) ; {L}[0]
extreme | the extreme of | max({L}) ; min({L}) | sum({L})
halfsum | half the sum of | sum({L}) // 2 | sum({L}) % 2 ; sum({L}) - 2
"""

_FINISH_ANY = """
number | the number of ; the count of | len({L}) | len(set({L})) ; {L}[0]
distinct | the number of distinct | len(set({L})) | len({L}) ; sorted({L}) | 0.2
ascending | in ascending order ; from low to high | sorted({L}) |
  sorted({L}, reverse=True) ; {L}[::-1]
descending | in descending order ; from high to low | sorted({L}, reverse=True) |
  sorted({L}) ; {L}[::-1] | 0.2
reversed | in reverse ; back to front | {L}[::-1] | sorted({L}, reverse=True) ; {L}[1:] | 0.15
firsts | the first {k} of | {L}[:{k}] | {L}[{k}:] ; {L}[{k}]
dropped | all but the first {k} of | {L}[{k}:] | {L}[:{k}] ; {L}[:-{k}] | 0.2
lasts | the last {k} of | {L}[-{k}:] | {L}[:{k}] ; {L}[-{k}]
shortened | all but the last {k} of | {L}[:-{k}] | {L}[-{k}:] ; {L}[:{k}] | 0.15
alternate | every other one of | {L}[::2] | {L}[1::2] ; {L}[2:]
alternate_second | every other one from the second of | {L}[1::2] | {L}[::2] ; {L}[1:] | 0.12
lead | the leading one of | {L}[0] | {L}[-1] ; {L}[:1]
final | the final one of | {L}[-1] | {L}[0] ; {L}[-1:] | 0.2
tidy | in ascending order without repeats | sorted(set({L})) | sorted({L}) ; {L}
ordered | put in order | sorted({L}) ; sorted({L}, reverse=True) | {L}[::-1]
end | the one at the end of | {L}[-1] ; {L}[0] | {L}
"""

_FINISH_TEXT = """
spaced | joined by spaces | " ".join({L}) | "".join({L}) ; "-".join({L})
dashed | joined by dashes | "-".join({L}) | " ".join({L}) ; "".join({L})
glued | glued together | "".join({L}) | " ".join({L}) ; sum({L}) | 0.2
commas | joined by commas | ",".join({L}) | ", ".join({L}) ; "-".join({L}) | 0.25
sortglued | sorted and glued together | "".join(sorted({L})) | sorted({L}) ; "".join({L}) | 0.15
linked | linked up | "".join({L}) ; "-".join({L}) | " ".join({L})
"""

_FINISH_WORDS = """
longest | the longest of | max({L}, key=len) | min({L}, key=len) ; max({L})
shortest | the shortest of | min({L}, key=len) | max({L}, key=len) ; min({L}) | 0.15
letters | the total length of | sum(map(len, {L})) | len({L}) ; sum({L}) | 0.25
bylength | sorted by length ; from short to long | sorted({L}, key=len) |
  sorted({L}) ; sorted({L})[len] | 0.2
"""

CONCEPTS: tuple[Concept, ...] = tuple(
    _table("prepare", "numbers", _PREPARE_NUMBERS)
    + _table("prepare", "words letters", _PREPARE_TEXT)
    + _table("keep", "numbers", _KEEP_NUMBERS)
    + _table("keep", "words", _KEEP_WORDS)
    + _table("keep", "letters", _KEEP_LETTERS)
    + _table("each", "numbers", _EACH_NUMBERS)
    + _table("each", "words", _EACH_WORDS)
    + _table("each", "letters", _EACH_LETTERS)
    + _table("finish", "int", _FINISH_NUMBERS)
    + _table("finish", "int word char", _FINISH_ANY)
    + _table("finish", "word char", _FINISH_TEXT)
    + _table("finish", "word", _FINISH_WORDS)
)
