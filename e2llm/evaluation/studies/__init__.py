"""Comparisons of several trained models."""
