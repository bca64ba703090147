"""Other engines, run as a user would install them, on the same board and the same scales as ours."""
