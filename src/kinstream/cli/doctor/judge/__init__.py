"""Judgements of `kinstream doctor`: findings from measured values, with their thresholds. Pure."""
