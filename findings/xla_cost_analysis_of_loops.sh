#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2, numpy 2.3.5; on the CPU.
#
# `compiled.cost_analysis()["flops"]` counts the body of a loop once, however often it runs, though
# the trip count of a `lax.scan` is a constant of the program. Ten products of matrices in a scan
# cost as much as one, and a hundred as much as ten; written out, ten cost ten times as much.
#
# One would expect the operations that the program executes. A model whose layers are scanned seems
# to need one layer's operations, and a figure of utilisation made of it is wrong by the number of
# layers.
#
# Output:
#   one product: counted as 1.00 products
#   ten, written out: counted as 10.00 products
#   ten in a scan: counted as 1.00 products
#   a hundred in a scan: counted as 1.00 products
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.3.5

JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import sys

import jax
import numpy as np

print("jax", jax.__version__)
matrix = np.ones((64, 64), np.float32)
product = 2 * 64**3


def scanned(count):
    return lambda x: jax.lax.scan(lambda x, _: (x @ matrix, None), x, length=count)[0]


def written_out(x):
    for _ in range(10):
        x = x @ matrix
    return x


def products(function):
    cost = jax.jit(function).lower(matrix).compile().cost_analysis()
    return cost["flops"] / product


seen = {
    "one product": products(lambda x: x @ matrix),
    "ten, written out": products(written_out),
    "ten in a scan": products(scanned(10)),
    "a hundred in a scan": products(scanned(100)),
}
for name, count in seen.items():
    print(f"{name}: counted as {count:.2f} products")
sys.exit([round(count) for count in seen.values()] != [1, 10, 1, 1])
PY
