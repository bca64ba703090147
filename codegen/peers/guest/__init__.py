"""Programs that run on the board, each with `board.py` beside it; nothing here imports them."""
