"""Benchmarks: `make bench` prints every table; `python -m tests.bench --help` says more."""
