"""Comparisons, measured side by side: `python -m tests.benchmarks`.

Every module `bench_*.py` here has a tuple COMPARISONS.
"""
