"""Measurements of `kinstream doctor`: its requests, which change nothing."""
