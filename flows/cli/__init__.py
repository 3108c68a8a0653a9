"""The command line `dreampolish`."""


def main() -> None:
    """The entry point."""
    from flows.cli.commands import app

    app()
