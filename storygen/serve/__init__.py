"""The models over HTTP, for other programs: an API as OpenAI has it, here and under Ray Serve."""
