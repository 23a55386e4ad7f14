"""The matrix product in each precision, and how each kind of hardware multiplies."""
