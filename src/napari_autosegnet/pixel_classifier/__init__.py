"""Features of single pixels and a random forest on them: what a few strokes are enough for."""
