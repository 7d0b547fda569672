"""The search: controller, supernet, strategies, choice of the winner."""
