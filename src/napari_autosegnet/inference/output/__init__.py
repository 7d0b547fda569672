"""Where results are written, and what is known of those already there."""
