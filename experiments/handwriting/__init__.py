"""Handwriting synthesis (§6.5, figure 5)."""
