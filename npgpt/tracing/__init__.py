"""Every tensor of a forward and backward pass by its name: recorded, replaced, in files."""
