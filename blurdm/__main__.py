import sys

from blurdm.cli import main

if __name__ == "__main__":
    sys.exit(main())
