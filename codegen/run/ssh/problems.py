"""What goes wrong between here and a board."""


class BoardProblem(Exception):
    """The board cannot do the job: it cannot be reached, or it is in use, or it died. The text is
    the user's; it begins with the host."""


class RunProblem(Exception):
    """The program or its figures are at fault: it hangs, it floods, it does not fit on the disk."""
