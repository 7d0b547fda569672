"""Models for other programs: an ONNX file, a package of the bioimage.io model zoo."""
