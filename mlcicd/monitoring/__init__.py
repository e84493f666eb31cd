"""What a running model's record amounts to: whether it is time to act."""
