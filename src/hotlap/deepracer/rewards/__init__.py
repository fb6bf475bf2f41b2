"""Reward functions: users' Python read, tried, translated, compiled and called for many cars."""
