"""What every process of a job needs: its rank, files that are whole or absent, stop signals."""
