"""The steps in which a network is searched and trained."""
