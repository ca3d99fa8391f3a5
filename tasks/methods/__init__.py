"""Methods: found, fitted by the shared trainer or in closed form."""
