"""The page that writers use, on Chainlit. Knows the engine's interface and stories, never torch."""
