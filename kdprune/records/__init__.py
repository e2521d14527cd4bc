"""What was observed of each sample, as files by sample id: the dynamics of a training, and rows of a pass over data."""
