"""Searches over plans: environment, agents and baselines. Imports codegen, never the reverse."""
