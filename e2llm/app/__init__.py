"""Run folders, stages, the command line, sharing, and the conversation with a trained model."""
