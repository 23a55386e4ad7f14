"""Files of models: llm.c's, Hugging Face's, a run's checkpoints; read, written, downloaded."""
