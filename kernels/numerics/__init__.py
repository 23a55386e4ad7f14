"""Number formats: bf16, int8 and int4 in memory; the functions of numbers that a softmax takes."""
