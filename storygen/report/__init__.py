"""The report: what the models can do, measured in one run. Knows train and engine, no chat."""
