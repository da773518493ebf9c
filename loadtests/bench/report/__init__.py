"""What people read of a run: one page and Markdown, made of `results.json` and nothing else."""
