"""Races: who drives against whom by which rules, what the standings say, leagues, films."""
