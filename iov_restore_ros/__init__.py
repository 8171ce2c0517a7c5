"""Restores camera frames for the perception stack of a vehicle (Wei et al. 2021)."""

__version__ = '0.1.0'
