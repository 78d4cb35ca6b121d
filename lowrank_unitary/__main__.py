"""Run the console script as ``python -m lowrank_unitary``."""

from .cli import main

raise SystemExit(main())
