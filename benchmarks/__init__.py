"""Native, in the sandbox and in other sandboxes, side by side in one run: `python -m benchmarks`."""
