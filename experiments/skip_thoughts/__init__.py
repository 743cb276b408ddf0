"""Skip-thoughts and the five sentence tasks (§6.3, figure 3, table 3)."""
