"""The reference engine: one process, torch and a Hugging Face model, CPU first."""
