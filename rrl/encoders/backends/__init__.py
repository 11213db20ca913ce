"""What computes a frozen network: torch, OpenVINO."""
