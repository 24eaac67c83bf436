"""The one bridge between trio and the callers of the libraries that armillary stands in for."""
