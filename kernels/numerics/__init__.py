"""Number formats, bf16 and int8 in memory, and the functions of numbers that a softmax takes."""
