"""Intervals in time as detectors and their task both know them: proposals, how they are refined, what comes out."""
