"""The frozen teacher as the training asks it: batched, cached, projected."""
