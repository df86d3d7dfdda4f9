"""What the attention of any vision transformer does: caught while it runs, measured as theory section 7 says."""
