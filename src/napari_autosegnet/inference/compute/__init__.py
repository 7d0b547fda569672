"""From gray values to classes, block by block."""
