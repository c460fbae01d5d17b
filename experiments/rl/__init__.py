"""PPO from scratch on the extracted, the true and a random reward of a maze."""
