"""What we ask of the car: actions, observation, reward, rules."""
