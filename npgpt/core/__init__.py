"""What all rooms share: a model's sizes, its parameters, precisions, threads."""
