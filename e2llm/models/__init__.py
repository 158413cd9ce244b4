"""Tensors in, tensors out: encoder, projector, language model, and how a trained model is asked."""
