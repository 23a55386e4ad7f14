"""Text to tokens and tokens to batches: tokenizers, token files, the order of the batches."""
