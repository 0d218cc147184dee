"""Real text for training: from books in a folder to token files."""
