"""A model applied to a section, a stack, or a store of any size."""
