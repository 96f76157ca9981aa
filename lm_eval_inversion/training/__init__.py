"""Collect, train, pack: how the shared inverter is made. Needs the extra ``[train]``."""
