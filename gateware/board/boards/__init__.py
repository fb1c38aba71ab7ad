"""One file a board; its name is the name of the board."""
