"""How a command ends."""

#: exit status: all well; some cell of the grid failed; the command line or the input is wrong
DONE, SOME_FAILED, WRONG = 0, 1, 2
