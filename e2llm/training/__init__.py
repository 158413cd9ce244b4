"""Arrays in, weights out; one module a stage."""
