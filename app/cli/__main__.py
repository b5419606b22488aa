"""`python -m app.cli` is `sapnet-service`."""

from app.cli.main import main

main()
