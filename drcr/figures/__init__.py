"""Pictures for papers, and the report."""
