"""`python -m sapnet` is `sapnet`; so `torchrun -m sapnet` starts it."""

from sapnet.cli.main import main

if __name__ == "__main__":
    main(prog_name="sapnet")
