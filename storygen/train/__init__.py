"""Training: configuration, data, the loop, evaluation and plots. Never knows engine or chat."""
