"""Many processes that train one model: ranks, what they tell each other, and who is lost."""
