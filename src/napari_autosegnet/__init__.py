"""Search, train, and apply a segmentation network for your own microscopy stacks."""
