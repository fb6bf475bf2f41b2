"""The files of a DeepRacer folder, as settings of ours."""
