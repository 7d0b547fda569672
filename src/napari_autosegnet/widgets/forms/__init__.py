"""Parts of forms, and work in the background of the window."""
