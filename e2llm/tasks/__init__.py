"""Instruction items and the language of thoughts: text only."""
