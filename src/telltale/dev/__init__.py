"""`telltale dev`: the embedded broker and database, and every worker, in one process tree."""
