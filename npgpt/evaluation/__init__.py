"""Evaluation of a model: its loss on text, its accuracy on HellaSwag, its exact match."""
