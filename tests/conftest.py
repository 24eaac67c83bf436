"""Fixtures of armillary's own tests: those that its users have."""

pytest_plugins = ["armillary.testing.fixtures"]
