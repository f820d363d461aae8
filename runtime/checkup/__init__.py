"""What a machine has to run engines with, one finding each; nothing that is broken may break the check."""
