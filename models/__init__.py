"""Pure PyTorch: backbone, prompts, scores, losses, metrics. No files, no Prefect, no databases."""
