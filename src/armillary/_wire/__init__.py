"""Bytes, numbers and orders of things that several protocols share. Pure: no I/O, no clock, no randomness."""
