"""Scores models and judges them: metrics with paired intervals, gates, slices, calibration, curves, budgets."""
