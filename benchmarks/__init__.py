"""Benchmarks: armillary and its peers in turn, in one run; what counts is the ratio."""
