"""What runs leave on disk and elsewhere: files, checkpoints, metrics, MLflow, plots."""
