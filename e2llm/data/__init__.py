"""From recordings to windows, and from windows to a dataset with its split."""
