"""Policies in environments: observations, episodes, steps."""
