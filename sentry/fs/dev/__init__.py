"""/dev: the devices behind character nodes (table.py, memory.py), and what stands there (populate.py)."""
