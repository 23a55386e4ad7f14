"""Nothing on trust: gradients against central differences, a model against PyTorch's results."""
