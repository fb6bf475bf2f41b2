"""DeepRacer's conventions: its reward params and its files, read unchanged."""
