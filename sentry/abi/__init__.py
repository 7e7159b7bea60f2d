"""Linux numbers and struct layouts for x86-64.  Imports nothing of the project."""
