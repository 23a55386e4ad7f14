"""Print a hash of the weights after three steps and of a text, for a process of its own."""

import hashlib

import numpy as np

import npgpt

rng = np.random.default_rng(0)
model = npgpt.GPT2(npgpt.GPT2Config(64, 257, 2, 4, 64), seed=1)
x, y = rng.integers(0, 257, (2, 4, 64))
for _ in range(3):
    model.forward_backward(x, y)
    model.update(1e-3, clip=1.0)
text = model.generate(x[:, :9], 9, temperature=0)
print(hashlib.sha256(model.params.flat.tobytes() + text.tobytes()).hexdigest())
