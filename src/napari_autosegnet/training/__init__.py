"""Losses, learning-rate schedules, metrics and the training of one network."""
