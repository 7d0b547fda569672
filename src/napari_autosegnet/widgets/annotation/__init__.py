"""What is painted, without a control: classes, pairs of layers, counts, export."""
