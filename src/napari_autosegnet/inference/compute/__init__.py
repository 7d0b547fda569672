"""From grey values to classes, block by block."""
