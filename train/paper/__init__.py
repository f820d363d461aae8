"""The paper's figures, and the runs that are put beside them."""
