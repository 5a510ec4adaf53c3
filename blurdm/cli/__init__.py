"""The command line: ``main.py`` has the arguments, the other modules what each command does."""
