"""`accelerate launch train.py …` is `kdprune train …`."""

import sys

from kdprune.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
