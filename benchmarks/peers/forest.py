"""The peers' two commands by the random forest: train DATA OUT SECONDS, predict DATA OUT; it takes what it needs."""

import sys
from pathlib import Path

from autosegnet import main

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), ["train", "--preset", "fast", "--network", "forest"])
