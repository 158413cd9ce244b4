"""Tables to figures, HTML and widgets."""
