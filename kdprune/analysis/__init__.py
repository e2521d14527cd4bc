"""What can be learned from scores and runs beside a subset: wrong labels, kernels, barriers, effects on classes."""
