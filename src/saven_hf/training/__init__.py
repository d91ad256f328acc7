"""Training: recipes, what each stage trains, rows to batches, feature caches, the trainer.

Nothing is imported here: trl, peft and datasets come with the modules that need them (pip install "saven-hf[train]").
"""
