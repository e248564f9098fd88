#!/usr/bin/env bash
# safetensors 0.8.0.
#
# `safe_open(...).get_slice(name)[a:b]` takes Python's slices of a tensor's rows without reading the
# rest of the file, but not with Python's meaning: an end behind the last row raises SafetensorError,
# a negative start raises OverflowError, a negative step SafetensorError. A start or a step within the
# rows works, and so does an open end.
#
# One would expect what NumPy does, which the same object otherwise resembles: ends are clamped,
# negative indices count from the end. Whoever reads a tensor in pieces of equal size must cut the
# last piece by hand.
#
# Output:
#   [0:64] NumPy 64 rows, safetensors 64 rows
#   [0:64:2] NumPy 32 rows, safetensors 32 rows
#   [60:] NumPy 4 rows, safetensors 4 rows
#   [0:4096] NumPy 64 rows, safetensors SafetensorError
#   [-4:] NumPy 4 rows, safetensors OverflowError
#   [::-1] NumPy 64 rows, safetensors SafetensorError
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/rows.safetensors" <<'PY'
import sys

import numpy as np
import safetensors
import safetensors.numpy

print("safetensors", safetensors.__version__)
path = sys.argv[1]
rows = np.arange(128, dtype=np.float32).reshape(64, 2)
safetensors.numpy.save_file({"rows": rows}, path)
CASES = {
    "[0:64]": (slice(0, 64), "64 rows"),
    "[0:64:2]": (slice(0, 64, 2), "32 rows"),
    "[60:]": (slice(60, None), "4 rows"),
    "[0:4096]": (slice(0, 4096), "SafetensorError"),
    "[-4:]": (slice(-4, None), "OverflowError"),
    "[::-1]": (slice(None, None, -1), "SafetensorError"),
}
changed = False
with safetensors.safe_open(path, framework="np") as file:
    for name, (part, expected) in CASES.items():
        try:
            read = file.get_slice("rows")[part]
            seen = f"{len(read)} rows" if np.array_equal(read, rows[part]) else "other rows"
        except Exception as error:
            seen = type(error).__name__
        print(f"{name} NumPy {len(rows[part])} rows, safetensors {seen}")
        changed |= seen != expected
sys.exit(changed)
PY
