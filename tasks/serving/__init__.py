"""What is used afterwards: the registry, tags for a folder, a served model, the services."""
