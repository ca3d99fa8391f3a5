"""What came out: scores, thresholds, studies, MLflow."""
