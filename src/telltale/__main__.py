"""`python -m telltale`: the command line."""

from telltale.cli import main

main()
