"""The order of the stages, one module per deployment; nothing else."""
