PLUGIN = "scorer"  # a kind of plug-ins, found by kdprune.registry
