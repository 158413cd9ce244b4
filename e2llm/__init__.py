"""e2llm: an interactive, notebook-first research kit of E2-LLM (arXiv 2601.07877)."""

__version__ = "0.1.0"
