"""`rrl reproduce`: a published figure from runs of ours, and a verdict on how they compare."""
