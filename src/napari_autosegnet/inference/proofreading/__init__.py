"""Mistakes of numbered objects mended by hand: a log of edits beside the store, which itself stays as it is."""
