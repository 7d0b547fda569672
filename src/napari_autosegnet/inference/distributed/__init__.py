"""Several workers on one result."""
