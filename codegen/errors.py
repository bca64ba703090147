"""The one exception that means "the user's input is wrong"."""


class CodegenError(Exception):
    """Bad input, printed without a traceback; exit code 2.

    The text reads `<where>: <what is wrong, with the value>; <what is allowed>; <what to do>`.
    """

    def __init__(self, where: str, what: str, allowed: str, todo: str):
        super().__init__(f"{where}: {what}; {allowed}; {todo}")
        self.where, self.what, self.allowed, self.todo = where, what, allowed, todo
