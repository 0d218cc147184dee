"""Stories: the tree of passages, where it is kept, and what of it a model reads."""
