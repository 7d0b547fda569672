"""OME-Zarr, versions 0.4 and 0.5: all that this program knows of it, each thing once.

`paths` says what lies where, `nodes` opens arrays and groups, `metadata` reads what a store says about itself,
`new_metadata` makes it for a new store, and `write` writes it. Which pixels are read or computed is decided elsewhere.
"""
