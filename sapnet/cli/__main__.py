"""`python -m sapnet.cli` is `sapnet`; the worker starts the trainer so."""

from sapnet.cli.main import main

main()
