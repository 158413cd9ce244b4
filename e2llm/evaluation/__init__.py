"""Predictions in, tables out."""
