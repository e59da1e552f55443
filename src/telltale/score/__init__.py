"""The score worker: dirty hours to summaries, features, scores and alerts, one transaction each."""

from telltale.score.loop import run

__all__ = ["run"]
