"""Images, annotations, the split, and patches made of them."""
