"""The step in which classes are painted."""
