"""Every extractor on every pair with a known reward, at equal steps, batch and width."""
