"""What napari opens and offers through the plugin."""
