"""How a kernel is compiled, is given another one to call, and writes vector instructions."""
