"""What every other room stands on: verdicts, errors and exit codes, digests, atomic files, subprocesses."""
