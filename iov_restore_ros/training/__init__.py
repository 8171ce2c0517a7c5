"""Offline training of a generator; nothing here is needed to run one."""
