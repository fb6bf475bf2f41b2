"""Models that DeepRacer trained or its car drives: names, archives, graphs, checkpoints."""
