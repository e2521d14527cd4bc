"""Pruners: how much each weight of a network matters; each is a file, found by its name."""

PLUGIN = "pruner"  # a kind of plug-ins, found by kdprune.registry
