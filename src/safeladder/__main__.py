"""``python -m safeladder``."""

from safeladder.cli.main import main

main()
