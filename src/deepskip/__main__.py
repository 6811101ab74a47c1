"""`deepskip` and `python -m deepskip`: the command line, quiet about Ctrl-C from its first moment on."""

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from deepskip.cli.app import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
