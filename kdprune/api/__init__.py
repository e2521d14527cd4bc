"""What `import kdprune` gives: a few functions and classes over the stages of the pipeline and the pieces below it."""
