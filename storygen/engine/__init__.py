"""Text generation: the interface that the chat knows, and the engines behind it."""
