"""How well a library does its task: scores of the float model and of generated C on a user's
data."""
