"""Comparisons with other libraries' outputs and with slow derivations of our own."""
