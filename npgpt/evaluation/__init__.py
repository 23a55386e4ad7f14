"""What a model is worth: its loss on text, its accuracy on HellaSwag, its exact answers."""
