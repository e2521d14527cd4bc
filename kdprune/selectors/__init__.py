PLUGIN = "selector"  # a kind of plug-ins, found by kdprune.registry
