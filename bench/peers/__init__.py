"""Other libraries that sample from GPT-2 beside npgpt in bench.sample, where they are installed."""
