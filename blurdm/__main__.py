import sys

from blurdm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
