"""For whoever writes GPT-2 in another language: traces compared, causes found, reference files."""
