"""Figures of what was filled."""
