"""The commands of the command line, but `train`, `evaluate`, `race` and their like in `cli.py`."""
