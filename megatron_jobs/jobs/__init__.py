"""Jobs: run folders, plans, receipts, running here and on Slurm. Knows Slurm, not training."""
