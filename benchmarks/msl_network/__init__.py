"""Benchmarks of the façade of MSL-Network against MSL-Network 1.0."""
