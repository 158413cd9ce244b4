"""Exercises that check an answer and give hints, a quiz for each lesson, and toy models for lessons."""
