"""Other engines, run as their users would run them, on the same board and scales as ours."""
