"""Dynamic data pruning: which samples an epoch of a training holds. Each method is a file, found by its name."""

PLUGIN = "order"  # a kind of plug-ins, found by kdprune.registry
