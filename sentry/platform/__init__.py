"""Platforms: how guest code runs and how its system calls come back.  See base.py."""
