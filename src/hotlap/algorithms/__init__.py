"""Learners and their policies; they know arrays, not cars."""
