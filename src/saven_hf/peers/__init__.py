"""Other systems' checkpoints in our classes: one module per system, imported when it is used."""
