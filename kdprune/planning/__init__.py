"""What to train for a budget, by short runs and curves that are fitted to them."""
