"""`python -m sidecar` and the `sidecar` command."""

from sidecar.cli.app import run


def main() -> None:
    """Run the command line; exits 0, 1 for a finding, 2 for bad usage or configuration."""
    run()


if __name__ == "__main__":
    main()
