"""The command lines: a module each, with ``main(arguments=None) -> int``."""
