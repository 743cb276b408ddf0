"""The analysis of section 5 as numbers."""
