"""Hosts: translate to and from lm-evaluation-harness and Inspect. No arithmetic here."""
