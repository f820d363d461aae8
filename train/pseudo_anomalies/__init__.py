"""Pseudo anomalies: what is blended into good pictures to learn from (paper, section 3.2, table 11)."""
