"""The step in which a model is applied and its result is corrected."""
