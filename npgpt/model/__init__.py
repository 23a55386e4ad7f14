"""The model: its passes, its backends, its optimizer, generation, and the memory that it takes."""
