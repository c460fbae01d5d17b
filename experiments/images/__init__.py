"""Images: two models -> records of both -> a reward -> an audit of what it prefers."""
