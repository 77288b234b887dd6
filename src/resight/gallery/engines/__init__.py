"""Where a gallery stores its records: one contract, one engine a file."""
