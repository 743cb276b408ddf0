"""The attentive reader on cloze questions (§6.2, figure 2)."""
