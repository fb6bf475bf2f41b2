"""hotlap trains cars to race: a track, a car and a reward function in, a driver that laps out."""
