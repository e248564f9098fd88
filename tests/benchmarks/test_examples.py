"""Examples of docstrings become asserts only where they can be read with certainty."""

import json

import pytest

from mucode_jax.benchmarks.examples import docstring_asserts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">>> f(1, 2)\n    3\n", ["assert f(1, 2) == 3"]),
        (">>> f([1,\n 2])\n3\n", ["assert f([1, 2]) == 3"]),
        (">>> f(1)\n[1,\n 2]\n>>> f(2)\n[]", ["assert f(1) == [1, 2]", "assert f(2) == []"]),
        (">>> f(1)\n'a' \n\nText", ["assert f(1) == 'a'"]),
        (">>> f(1) == 2\n", ["assert f(1) == 2"]),
        (">>> f(1)\n", []),
        (">>> f(1)\n>>> f(2)\n2", ["assert f(2) == 2"]),
        ("f(1) == 2", ["assert f(1) == 2"]),
        ("f(1) = 2\nf(2)=> 3\nf(3) ==>4", [f"assert f({i}) == {i + 1}" for i in (1, 2, 3)]),
        ("* f(1) -> 2\nf(2) ➞ 'a'", ["assert f(1) == 2", "assert f(2) == 'a'"]),
        ("f('a') returns 'b'", ["assert f('a') == 'b'"]),
        ("f({'a': 1}) should return True.", ["assert f({'a': 1}) == True"]),
        ("f(1) => true\nf(2) => false", ["assert f(1) == True", "assert f(2) == False"]),
        ('f("x")   # returns "y"', ["assert f('x') == 'y'"]),
        ("f('x') # => 'No' (as it must)", ["assert f('x') == 'No'"]),
        ("f(')') == 1  # remark", ["assert f(')') == 1"]),
        ("f(1) == 2\nf(1) == 2", ["assert f(1) == 2"]),
        # What cannot be read with certainty:
        ("f(x) == 2", []),
        ("f(1) == x", []),
        ("f(1) -> 3 - 1 = 2", []),
        ("f(1) == 1 + 1", []),
        ("f(__import__('os')) == 1", []),
        ("g(f(1)) == 2", []),
        ("self.f(1) == 2; af(1) == 2", []),
        ("f(a=1) == 2", []),
        ('f(1) == ""a"', []),
        ("f(1) and f(2", []),
        ("f(1) returning 2", []),
    ],
)
def test_examples_are_read(text, expected):
    assert list(docstring_asserts(text, "f")) == expected


def test_every_assert_read_off_humaneval_agrees_with_its_reference(data_dir):
    total, without = 0, 0
    with open(data_dir / "humaneval.jsonl", encoding="utf-8") as file:
        for row in map(json.loads, file):
            name = row["entry_point"]
            docstring = row["prompt"].rpartition(f"def {name}")[2].partition("\n")[2]
            asserts = docstring_asserts(docstring, name)
            total, without = total + len(asserts), without + (not asserts)
            namespace = {}
            exec(row["prompt"] + row["canonical_solution"], namespace)  # published solutions
            for statement in asserts:
                exec(statement, namespace)
    assert (total, without) == (391, 26)
