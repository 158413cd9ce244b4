"""The domain's words: bands, labels, montage, claims, chat tokens, files. Nothing here needs torch or opens a run."""
