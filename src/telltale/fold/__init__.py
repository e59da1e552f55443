"""Raw report rows folded into mergeable summaries of hours and days."""
