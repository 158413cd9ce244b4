"""Exercises of each lesson: one source for the lesson's cells and for the notebook of solutions."""
