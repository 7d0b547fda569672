"""Files of images, a module per format."""
