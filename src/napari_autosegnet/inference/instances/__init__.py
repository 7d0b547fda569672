"""Objects of one class, numbered across blocks."""
