"""Scores of a model or of a prediction against labels.

Both are scored section by section, so a stack of any length needs the memory of a few sections.
"""
