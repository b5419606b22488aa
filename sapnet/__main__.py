"""`python -m sapnet` is `sapnet`; so `torchrun -m sapnet` starts it."""

from sapnet.cli.main import app

if __name__ == "__main__":
    app(prog_name="sapnet")
