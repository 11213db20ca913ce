"""A screen that remembers."""

from rrl.machine.console import Display


class Lines(Display):
    """Keeps what it is asked to print."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def line(self, text):
        self.lines.append(text)
