"""/dev: the devices behind nodes (table.py), by kind, and what stands there at first (populate.py)."""
