"""Summaries to named feature columns, one function for training and serving."""
