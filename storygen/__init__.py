"""storygen: an interactive story-writing chat on locally trained GPT models."""
